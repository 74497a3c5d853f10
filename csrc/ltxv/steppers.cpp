#include "steppers.h"

#include <algorithm>
#include <cmath>

#include "conditioning.h"

namespace sdltx {

namespace {

// Where res_2s stops in place of 0, at which its steps would be infinitely long.
constexpr float last_level = 0.0011f;

void advance(std::vector<float>& x, const std::vector<float>& x0, float sigma, float next) {
    for (size_t i = 0; i < x.size(); ++i) x[i] += (x[i] - x0[i]) / sigma * (next - sigma);
}

// Velocities of this step, which the next one extrapolates from; x0 becomes what the extrapolated velocity leads to.
void extrapolate(const std::vector<float>& x, std::vector<float>& x0, std::vector<float>& before, float sigma) {
    constexpr float gamma = 2;
    std::vector<float> velocity(x.size());
    for (size_t i = 0; i < x.size(); ++i) velocity[i] = (x[i] - x0[i]) / sigma;
    if (!before.empty())
        for (size_t i = 0; i < x.size(); ++i) x0[i] = x[i] - sigma * (before[i] + gamma * (velocity[i] - before[i]));
    before = std::move(velocity);
}

std::vector<double> to_double(const std::vector<float>& x) { return {x.begin(), x.end()}; }

// Zero mean and unit deviation, as the reference normalises what res_2s injects: over all values of a stream.
void standardise(std::vector<double>& x) {
    for (int round = 0; round < 2; ++round) {
        double mean = 0, sum = 0;
        for (double v : x) mean += v;
        mean /= static_cast<double>(x.size());
        for (double v : x) sum += (v - mean) * (v - mean);
        const double deviation = std::sqrt(sum / static_cast<double>(x.size() - 1));
        for (double& v : x) v = (v - mean) / deviation;
    }
}

// From `from` at sigma to `to`, the deterministic result at `next`: half of the level's noise is replaced by new noise.
void inject(const std::vector<double>& from, std::vector<double>& to, double sigma, double next,
            std::vector<double> noise) {
    constexpr double eta = 0.5;
    const double up = std::min(eta * next, 0.9999 * next);
    if (up == 0 || next == 0) return;
    const double residual = std::sqrt(std::max(0.0, next * next - up * up)), ratio = (1 - next) + residual,
                 down = residual / ratio;
    standardise(noise);
    for (size_t i = 0; i < to.size(); ++i) {
        const double e = (from[i] - to[i]) / (sigma - next);
        to[i] = ratio * ((from[i] - sigma * e) + down * e) + up * noise[i];
    }
}

std::vector<float> held(const StreamState& s, const std::vector<double>& x) {
    std::vector<float> y(x.begin(), x.end());
    hold_conditioned(s, y);
    return y;
}

}  // namespace

std::vector<float> Stepper::levels(SamplerKind kind, const std::vector<float>& sigmas) {
    std::vector<float> levels = sigmas;
    if (kind == SamplerKind::res_2s && levels.back() == 0 && levels[levels.size() - 2] > last_level)
        levels.insert(levels.end() - 1, last_level);
    return levels;
}

int64_t Stepper::calls(SamplerKind kind, float next) { return kind == SamplerKind::res_2s && next > 0 ? 2 : 1; }

Denoised Stepper::step(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index) {
    switch (kind_) {
        case SamplerKind::gradient_estimation:
            return gradient_estimation(state, denoise, sigma, next, index);
        case SamplerKind::euler_ancestral:
            return euler_ancestral(state, denoise, sigma, next, index);
        case SamplerKind::res_2s:
            return res_2s(state, denoise, sigma, next, index);
        case SamplerKind::euler:
            break;
    }
    Denoised x0 = denoise(state, sigma, index);
    advance(state.video.latent, x0.video, sigma, next);
    advance(state.audio.latent, x0.audio, sigma, next);
    return x0;
}

Denoised Stepper::gradient_estimation(SampleState& state, const Denoise& denoise, float sigma, float next,
                                      int64_t index) {
    Denoised x0 = denoise(state, sigma, index);
    if (next == 0) {
        state.video.latent = x0.video;
        state.audio.latent = x0.audio;
        return x0;
    }
    Denoised target = x0;
    extrapolate(state.video.latent, target.video, video_velocity_, sigma);
    extrapolate(state.audio.latent, target.audio, audio_velocity_, sigma);
    advance(state.video.latent, target.video, sigma, next);
    advance(state.audio.latent, target.audio, sigma, next);
    return x0;
}

Denoised Stepper::euler_ancestral(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index) {
    constexpr double eta = 1, s_noise = 1;
    Denoised x0 = denoise(state, sigma, index);
    const double s = sigma, n = next, down = n * (1 + (n / s - 1) * eta), keep = down / s, alpha = (1 - n) / (1 - down),
                 noise_level = std::sqrt(std::max(0.0, n * n - down * down * alpha * alpha)) * s_noise;
    const auto go = [&](StreamState& stream, const std::vector<float>& clean, bool video) {
        std::vector<float>& x = stream.latent;
        if (next == 0 || x.empty()) {
            x = clean;
            return;
        }
        const std::vector<float> noise = draw_({video, static_cast<int64_t>(x.size()), index, 0});
        for (size_t i = 0; i < x.size(); ++i)
            x[i] = static_cast<float>(alpha * (keep * x[i] + (1 - keep) * clean[i]) + noise_level * noise[i]);
        hold_conditioned(stream, x);
    };
    go(state.video, x0.video, true);
    go(state.audio, x0.audio, false);
    return x0;
}

Denoised Stepper::res_2s(SampleState& state, const Denoise& denoise, float sigma, float next, int64_t index) {
    Denoised first = denoise(state, sigma, index);
    if (next == 0) {
        state.video.latent = first.video;
        state.audio.latent = first.audio;
        return first;
    }
    const double s = sigma, n = next, h = std::log(s / n), middle = std::sqrt(s * n);
    const auto phi1 = [](double z) { return std::abs(z) < 1e-10 ? 1.0 : std::expm1(z) / z; };
    const auto phi2 = [](double z) { return std::abs(z) < 1e-10 ? 0.5 : (std::expm1(z) - z) / (z * z); };
    const double a21 = 0.5 * phi1(-h / 2), b2 = 2 * phi2(-h), b1 = phi1(-h) - b2;

    struct Stream {
        bool video;
        StreamState& state;
        const std::vector<float>& x0;
        std::vector<double> anchor{}, towards{};  // towards: from the anchor to the first estimate
    };
    Stream streams[] = {{true, state.video, first.video}, {false, state.audio, first.audio}};
    SampleState between = state;
    const auto noise = [&](const Stream& of, int kind) {
        return to_double(draw_({of.video, static_cast<int64_t>(of.x0.size()), index, kind}));
    };
    for (Stream& of : streams) {
        const size_t size = of.x0.size();
        if (size == 0) continue;
        of.anchor = to_double(of.state.latent);
        of.towards.resize(size);
        std::vector<double> x(size);
        for (size_t i = 0; i < size; ++i) {
            of.towards[i] = of.x0[i] - of.anchor[i];
            x[i] = of.anchor[i] + h * a21 * of.towards[i];
        }
        inject(of.anchor, x, s, middle, noise(of, 1));
        for (size_t i = 0; i < size; ++i) {  // conditioned tokens stay what they are
            const double m = of.state.mask[i / static_cast<size_t>(of.state.channels)];
            x[i] = x[i] * m + of.state.clean[i] * (1 - m);
        }
        // With short steps the point that the noise was added to is moved so that it fits what came of it.
        if (h < 0.5 && s > 0.03)
            for (int round = 0; round < 100; ++round)
                for (size_t i = 0; i < size; ++i) {
                    of.anchor[i] = x[i] - h * a21 * of.towards[i];
                    of.towards[i] = of.x0[i] - of.anchor[i];
                }
        (of.video ? between.video : between.audio).latent.assign(x.begin(), x.end());
    }
    const Denoised second = denoise(between, static_cast<float>(middle), 0);
    for (Stream& of : streams) {
        const size_t size = of.x0.size();
        if (size == 0) continue;
        const std::vector<float>& x0 = of.video ? second.video : second.audio;
        std::vector<double> y(size);
        for (size_t i = 0; i < size; ++i) y[i] = of.anchor[i] + h * (b1 * of.towards[i] + b2 * (x0[i] - of.anchor[i]));
        inject(of.anchor, y, s, n, noise(of, 0));
        of.state.latent = held(of.state, y);
    }
    return first;
}

}  // namespace sdltx
