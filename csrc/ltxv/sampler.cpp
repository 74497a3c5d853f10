#include "sampler.h"

#include <cmath>

#include "schedule.h"

namespace sdltx {

Sampler::Sampler(Denoiser denoiser, SampleState start, std::vector<float> sigmas)
    : denoiser_(std::move(denoiser)), state_(std::move(start)), sigmas_(std::move(sigmas)) {
    check_sigmas(sigmas_);
}

Sampler::~Sampler() = default;

void Sampler::check_finite(const char* name, const std::vector<float>& values) const {
    for (float v : values)
        if (!std::isfinite(v))
            throw Error(ErrorCode::backend,
                        "[denoise] step " + std::to_string(index_ + 1) + " of " + std::to_string(num_steps()) +
                            " gave " + name +
                            " values that are not finite; check the model files, or try precision f32");
}

void Sampler::step(const TransformerRun::OnBlock& on_block) {
    if (done())
        throw Error(ErrorCode::invalid_request,
                    "[denoise] all " + std::to_string(num_steps()) + " steps are done; start a new run");
    const float sigma = sigmas_[static_cast<size_t>(index_)], next = sigmas_[static_cast<size_t>(index_) + 1];
    const Denoise denoise = [&](const SampleState& state, float level) {
        Denoised x0 = denoiser_(state, level, on_block);
        check_finite("video", x0.video);
        check_finite("audio", x0.audio);
        return x0;
    };
    // Both streams or none: a step that fails leaves them at the same place.
    SampleState next_state = state_;
    denoised_ = euler_step(next_state, denoise, sigma, next);
    state_ = std::move(next_state);
    ++index_;
}

}  // namespace sdltx
