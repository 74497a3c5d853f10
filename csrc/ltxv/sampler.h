// The denoising loop over both streams (sampling.md section 3; ltx-pipelines samplers).
#pragma once

#include <vector>

#include "denoiser.h"
#include "steppers.h"

namespace sdltx {

class SDLTX_EXPORT Sampler {
 public:
    // From `start`, which has the noise of the first of `sigmas`. Throws Error(invalid_request) for levels that do not
    // fall.
    Sampler(Denoiser denoiser, SampleState start, const std::vector<float>& sigmas, SamplerKind kind, DrawNoise draw);
    ~Sampler();

    int64_t num_steps() const { return static_cast<int64_t>(sigmas_.size()) - 1; }
    int64_t index() const { return index_; }
    bool done() const { return index_ == num_steps(); }
    // Estimates that were asked for, and of all steps.
    int64_t calls() const { return calls_; }
    int64_t num_calls() const;
    // One step, or none when it throws: Error(backend) that names the step when a value is not finite,
    // Error(invalid_request) when done(), and whatever `on_block` throws. `on_block` counts blocks of one estimate.
    void step(const TransformerRun::OnBlock& on_block = {});

    // Null for none.
    Loras* loras() const { return denoiser_.loras(); }
    const SampleState& state() const { return state_; }
    // Clean estimates of the last step.
    const Denoised& denoised() const { return denoised_; }

 private:
    void check_finite(const char* name, const std::vector<float>& values) const;

    Denoiser denoiser_;
    SampleState state_;
    std::vector<float> sigmas_;  // levels of the stepper
    SamplerKind kind_;
    Stepper stepper_;
    Denoised denoised_;
    int64_t index_ = 0, calls_ = 0;
};

}  // namespace sdltx
