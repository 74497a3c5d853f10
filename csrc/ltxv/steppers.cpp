#include "steppers.h"

namespace sdltx {

namespace {

void advance(std::vector<float>& x, const std::vector<float>& x0, float sigma, float next) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += (x[i] - x0[i]) / sigma * (next - sigma);
}

}  // namespace

Denoised euler_step(SampleState& state, const Denoise& denoise, float sigma, float next) {
    Denoised x0 = denoise(state, sigma);
    advance(state.video.latent, x0.video, sigma, next);
    advance(state.audio.latent, x0.audio, sigma, next);
    return x0;
}

}  // namespace sdltx
