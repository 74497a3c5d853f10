#include "sampler.h"

#include <cmath>

#include "schedule.h"

namespace sdltx {

Sampler::Sampler(Denoiser denoiser, SampleState start, const std::vector<float>& sigmas, SamplerKind kind,
                 DrawNoise draw)
    : denoiser_(std::move(denoiser)), state_(std::move(start)), kind_(kind), stepper_(kind, std::move(draw)) {
    check_sigmas(sigmas);
    sigmas_ = Stepper::levels(kind, sigmas);
}

int64_t Sampler::num_calls() const {
    int64_t n = 0;
    for (size_t i = 1; i < sigmas_.size(); ++i) n += Stepper::calls(kind_, sigmas_[i]);
    return n;
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
    const int64_t calls_before = calls_;
    const Denoise denoise = [&](const SampleState& state, float level, int64_t step) {
        Denoised x0 = denoiser_(state, level, step, on_block);
        check_finite("video", x0.video);
        check_finite("audio", x0.audio);
        ++calls_;
        return x0;
    };
    // All or nothing: a step that fails leaves both streams, and what the stepper remembers, where they were.
    SampleState next_state = state_;
    Stepper stepper = stepper_;
    try {
        denoised_ = stepper.step(next_state, denoise, sigma, next, index_);
    } catch (...) {
        calls_ = calls_before;
        throw;
    }
    state_ = std::move(next_state);
    stepper_ = std::move(stepper);
    ++index_;
}

}  // namespace sdltx
