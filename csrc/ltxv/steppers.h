// Steps from one noise level to the next (sampling.md section 3; ltx-core diffusion_steps, ltx-pipelines samplers and
// res2s). Arithmetic in double where the reference has it.
#pragma once

#include <functional>
#include <vector>

#include "sample_state.h"

namespace sdltx {

enum class SamplerKind { euler, gradient_estimation, euler_ancestral, res_2s };

// What a stepper asks for the clean latents at a noise level; it may ask more than once. `step` counts from 0.
using Denoise = std::function<Denoised(const SampleState& state, float sigma, int64_t step)>;

// Standard normal values for a stream in a step, -1: at the start; kinds are what a step draws: 0, and 1 for what it
// draws on its way.
struct NoiseRequest {
    bool video;
    int64_t count;
    int64_t step;
    int kind;
};
using DrawNoise = std::function<std::vector<float>(const NoiseRequest& request)>;

// A row of steps over `sigmas`; what it remembers goes from step to step.
class SDLTX_EXPORT Stepper {
 public:
    // The levels that a sampler walks for a wanted list: res_2s ends a bit above 0 and estimates once more there.
    static std::vector<float> levels(SamplerKind kind, const std::vector<float>& sigmas);
    // How often a step to level `next` asks for an estimate.
    static int64_t calls(SamplerKind kind, float next);

    Stepper(SamplerKind kind, DrawNoise draw) : kind_(kind), draw_(std::move(draw)) {}

    // From sigma to next; returns the estimate that the step began with.
    Denoised step(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index);

 private:
    Denoised gradient_estimation(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index);
    Denoised euler_ancestral(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index);
    Denoised res_2s(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index);

    SamplerKind kind_;
    DrawNoise draw_;
    std::vector<float> video_velocity_, audio_velocity_;  // of gradient estimation: of the step before
};

}  // namespace sdltx
