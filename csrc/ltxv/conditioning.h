// What is done to the latents before the first step and after each estimate (sampling.md sections 1 and 5).
#pragma once

#include <vector>

#include "geometry.h"
#include "sample_state.h"

namespace sdltx {

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

// Tokens of their own likewise, for a picture that is made beside the clip and that the clip finds its way through
// (ltx-2.5.md section 7). latent (C, 1, H', W'): what it is made from, as a clip that is refined; empty: nothing.
void append_slot(StreamState& s, const Geometry& g, int64_t frame, const Array& latent);
// The frames of `count` such pictures, evenly over a clip of so many. Throws Error(invalid_request) for more than there
// is room for.
std::vector<int64_t> slot_frames(int64_t count, int64_t num_frames);

// The whole stream stays what its latent is.
void freeze(StreamState& s);

// latent = k noise + (1 - k) latent, conditioned tokens blended with what they are held at (ltx-core GaussianNoiser).
// noise (T, C); k is the first sigma.
void add_noise(StreamState& s, const std::vector<float>& noise, float k);

// x0 mask + clean (1 - mask): conditioned tokens stay what they are.
void hold_conditioned(const StreamState& s, std::vector<float>& x0);

}  // namespace sdltx
