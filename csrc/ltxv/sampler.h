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
    Sampler(Denoiser denoiser, SampleState start, std::vector<float> sigmas);
    ~Sampler();

    int64_t num_steps() const { return static_cast<int64_t>(sigmas_.size()) - 1; }
    int64_t index() const { return index_; }
    bool done() const { return index_ == num_steps(); }
    // One step, or none when it throws: Error(backend) that names the step when a value is not finite,
    // Error(invalid_request) when done(), and whatever `on_block` throws.
    void step(const TransformerRun::OnBlock& on_block = {});

    const SampleState& state() const { return state_; }
    // Clean estimates of the last step.
    const Denoised& denoised() const { return denoised_; }

 private:
    void check_finite(const char* name, const std::vector<float>& values) const;

    Denoiser denoiser_;
    SampleState state_;
    std::vector<float> sigmas_;
    Denoised denoised_;
    int64_t index_ = 0;
};

}  // namespace sdltx
