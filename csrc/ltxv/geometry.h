// Sizes of clips and of their latents, and what is accepted of either.
#pragma once

#include <cstdint>

namespace sdltx {

struct Geometry {
    int64_t frames, height, width;  // of the video latent
    int64_t audio_frames;           // of the audio latent
    double frame_rate;
};

// Latent sizes of a clip; width and height in pixels. Throws Error(invalid_request) that names the nearest legal
// values.
Geometry latent_geometry(int64_t width, int64_t height, int64_t num_frames, double frame_rate);

// Throws Error(invalid_request) unless a clip that is accepted could have latents of this size.
void check_video_latents(int64_t frames, int64_t height, int64_t width);
void check_audio_latents(int64_t frames);

}  // namespace sdltx
