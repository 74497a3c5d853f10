// What is done to the latents before the first step and after each estimate (sampling.md sections 1 and 5).
#pragma once

#include <vector>

#include "sample_state.h"

namespace sdltx {

// latent = k noise + (1 - k) latent, conditioned tokens blended with what they are held at (ltx-core GaussianNoiser).
// noise (T, C); k is the first sigma.
void add_noise(StreamState& s, const std::vector<float>& noise, float k);

// x0 mask + clean (1 - mask): conditioned tokens stay what they are.
void hold_conditioned(const StreamState& s, std::vector<float>& x0);

}  // namespace sdltx
