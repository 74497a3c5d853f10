// Latents on their way from noise to a clip, as the tokens that the transformer sees.
#pragma once

#include <vector>

#include "base/types.h"
#include "geometry.h"
#include "rope.h"
#include "token_groups.h"

namespace sdltx {

// One stream. Tokens (T, C).
struct StreamState {
    int64_t num_tokens = 0, channels = 0;
    std::vector<float> latent;  // noisy, x at the current sigma
    std::vector<float> clean;   // what conditioned tokens are held at
    std::vector<float> mask;    // (T): 1 = denoise freely, 0 = keep clean
    Positions positions;
    TokenGroups groups{};  // of those that were appended; empty: all tokens see each other
    bool frozen = false;   // stays what it is, and counts as clean whatever the noise level

    bool empty() const { return num_tokens == 0; }
    float level(float sigma) const { return frozen ? 0 : sigma; }
};
struct SampleState {
    StreamState video, audio;
};

// Estimates of the clean latents, tokens (T, C).
struct Denoised {
    std::vector<float> video, audio;
};

// An unconditioned stream of zeros.
StreamState empty_stream(int64_t channels, Positions positions);

// Video (C, F', H', W') <-> tokens (F'*H'*W', C); audio (C, T, mel) <-> tokens (T, C*mel).
std::vector<float> video_to_tokens(const Array& latents);
Array tokens_to_video(const std::vector<float>& tokens, int64_t channels, const Geometry& geometry);
std::vector<float> audio_to_tokens(const Array& latents);
Array tokens_to_audio(const std::vector<float>& tokens, int64_t channels, int64_t mel_bins, int64_t frames);

// Frame i of latents (C, F', H', W') alone, (C, 1, H', W'); and the opposite.
Array latent_frame(const Array& latents, int64_t i);
Array joined_frames(const std::vector<Array>& frames);

}  // namespace sdltx
