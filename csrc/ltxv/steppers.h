// Steps from one noise level to the next (sampling.md section 3; ltx-pipelines samplers).
#pragma once

#include <functional>

#include "sample_state.h"

namespace sdltx {

// What a stepper asks for the clean latents at a noise level; it may ask more than once.
using Denoise = std::function<Denoised(const SampleState& state, float sigma)>;

// x + (x - x0) / sigma (next - sigma). Returns x0.
Denoised euler_step(SampleState& state, const Denoise& denoise, float sigma, float next);

}  // namespace sdltx
