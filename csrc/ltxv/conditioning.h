// What is done to the latents before the first step and after each estimate (sampling.md sections 1 and 5,
// conditioning.md sections 1 to 8).
#pragma once

#include <optional>
#include <vector>

#include "geometry.h"
#include "sample_state.h"

namespace sdltx {

// Latents that tokens of a clip are held at: the ones of a span, or where they are to be kept.
struct Kept {
    Array latent;        // (C, n, H', W') or of sound (C, n, mel), normalised
    int64_t first = 0;   // latent frame
    float strength = 1;  // 1: they stay as they are; 0: they are denoised as everything else
    Array weight{};      // (n, H', W') or (n): 1 where they are kept, 0 where the clip is free; empty: 1 everywhere
};
// s has the tokens of a clip, `latent_frame` of them for each latent frame.
void keep(StreamState& s, const Kept& kept, int64_t tokens_of_frame);

// An encoded picture and where it belongs.
struct Keyframe {
    Array latent;        // (C, 1, H', W'), normalised
    int64_t frame = 0;   // of the clip
    float strength = 1;  // 1: it stays as it is; 0: it is denoised as everything else
};

// The clip begins with it: the tokens of its first latent frame are held at it. s has the tokens of `g`.
void begin_with(StreamState& s, const Geometry& g, const Keyframe& keyframe);
// Tokens of its own at the end, which the clip sees at their time and which are dropped after the last step.
void append_keyframe(StreamState& s, const Geometry& g, const Keyframe& keyframe);

// A film that the clip follows, as an IC-LoRA was trained to: tokens of its own likewise (ltx-core
// VideoConditionByReferenceLatent).
struct ReferenceFilm {
    Array latent;           // (C, f, h, w), normalised
    int64_t downscale = 1;  // how many times smaller than the clip it is
    int64_t temporal = 1;   // how many frames of the clip one of its own stands for
    float strength = 1;     // 1: it stays as it is; less: it is noised and denoised, too
    // (f h w): how strongly each of its tokens and the clip see each other, 0 to 1; nothing: fully, as all others.
    std::optional<std::vector<float>> attention{};
};
void append_reference(StreamState& s, double frame_rate, const ReferenceFilm& reference);
// Sound of another time, that ends before the clip begins (C, R, mel): tokens of their own (conditioning.md 8).
void append_sound(StreamState& s, const Array& latent);

// Tokens of their own likewise, for a picture that is made beside the clip and that the clip finds its way through
// (ltx-2.5.md section 7). latent (C, 1, H', W'): what it is made from, as a clip that is refined; empty: nothing.
void append_slot(StreamState& s, const Geometry& g, int64_t frame, const Array& latent);
// The frames of `count` such pictures, evenly over a clip of so many. Throws Error(invalid_request) for more than there
// is room for.
std::vector<int64_t> slot_frames(int64_t count, int64_t num_frames);

// 1 for the tokens of a stream that last within [from, to) seconds, at least in part, else 0.
SDLTX_EXPORT std::vector<float> within(const Positions& positions, double from, double to);

// The whole stream, with what was appended, stays what it is held at, or else what its latent is.
void freeze(StreamState& s);

// latent = k noise + (1 - k) latent, conditioned tokens blended with what they are held at (ltx-core GaussianNoiser).
// noise (T, C); k is the first sigma.
void add_noise(StreamState& s, const std::vector<float>& noise, float k);

// x0 mask + clean (1 - mask): conditioned tokens stay what they are.
void hold_conditioned(const StreamState& s, std::vector<float>& x0);

}  // namespace sdltx
