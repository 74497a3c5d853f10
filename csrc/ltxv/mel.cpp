#include "mel.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace sdltx {

namespace {

constexpr double pi = 3.14159265358979323846;
constexpr double highest = analysis_rate / 2.0;  // Hz

// In place, of a power of two (Cooley and Tukey).
void fourier_transform(std::vector<std::complex<double>>& x) {
    const size_t n = x.size();
    for (size_t i = 1, j = 0; i < n; ++i) {
        size_t bit = n >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) std::swap(x[i], x[j]);
    }
    for (size_t length = 2; length <= n; length *= 2)
        for (size_t k = 0; k < length / 2; ++k) {
            const auto turn = std::polar(1.0, -2 * pi * static_cast<double>(k) / static_cast<double>(length));
            for (size_t i = k; i < n; i += length) {
                const auto odd = x[i + length / 2] * turn;
                x[i + length / 2] = x[i] - odd;
                x[i] += odd;
            }
        }
}

// Slaney's scale: linear up to 1 kHz, logarithmic above.
constexpr double knee = 1000, below = 200.0 / 3, above = 27;
double to_mel(double hz) { return hz < knee ? hz / below : knee / below + above * std::log(hz / knee) / std::log(6.4); }
double to_hz(double mel) {
    return mel < knee / below ? mel * below : knee * std::exp((mel - knee / below) * std::log(6.4) / above);
}

// Triangles (bins, window / 2 + 1) of unit area.
std::vector<double> mel_filters(int64_t bins) {
    std::vector<double> corner;
    for (int64_t i = 0; i < bins + 2; ++i)
        corner.push_back(to_hz(to_mel(highest) * static_cast<double>(i) / static_cast<double>(bins + 1)));
    const int64_t lines = analysis_window / 2 + 1;
    std::vector<double> filters(static_cast<size_t>(bins * lines));
    for (int64_t j = 0; j < bins; ++j)
        for (int64_t k = 0; k < lines; ++k) {
            const double f = highest * static_cast<double>(k) / static_cast<double>(lines - 1);
            const double* p = &corner[static_cast<size_t>(j)];
            const double height = std::max(0.0, std::min((f - p[0]) / (p[1] - p[0]), (p[2] - f) / (p[2] - p[1])));
            filters[static_cast<size_t>(j * lines + k)] = height * 2 / (p[2] - p[0]);
        }
    return filters;
}

}  // namespace

Array resample(const Array& wave, int from, int to) {
    constexpr int fastest = 1'000'000;
    if (from < 1 || to < 1 || from > fastest || to > fastest)
        throw Error(ErrorCode::invalid_request, "[sound] a sample rate of " + std::to_string(from < 1 ? from : to) +
                                                    " Hz is out of range; use 1 to 1000000");
    if (from == to) return wave;
    const int64_t divisor = std::gcd(from, to), a = from / divisor, b = to / divisor;
    constexpr double rolloff = 0.99, zeros = 6;
    const double base = static_cast<double>(std::min(a, b)) * rolloff;
    const auto width = static_cast<int64_t>(std::ceil(zeros * static_cast<double>(a) / base));
    const int64_t channels = wave.dim(0), length = wave.dim(1), out = (length * b + a - 1) / a;
    Array y{{channels, out}, std::vector<float>(static_cast<size_t>(channels * out))};
    // A result hears the samples around it, within six zeros of the sinc; the reference's other taps are nothing.
    // Results whose numbers differ by b have the same taps, which are kept while they fit the memory of a short sound.
    const int64_t taps = 2 * width + 2;
    const auto first_of = [&](int64_t phase) { return phase * a / b - width; };
    const auto fill = [&](int64_t phase, double* kernel) {
        for (int64_t n = 0; n < taps; ++n) {
            const double t = std::clamp((static_cast<double>(first_of(phase) + n) / static_cast<double>(a) -
                                         static_cast<double>(phase) / static_cast<double>(b)) *
                                            base,
                                        -zeros, zeros);
            const double window = std::cos(t * pi / zeros / 2);
            const double sinc = t == 0 ? 1 : std::sin(pi * t) / (pi * t);
            kernel[n] = sinc * window * window * base / static_cast<double>(a);
        }
    };
    constexpr int64_t most_kept = 1 << 20;
    const bool kept = b * taps <= most_kept;
    std::vector<double> kernels(static_cast<size_t>(kept ? b * taps : taps));
    if (kept)
        for (int64_t phase = 0; phase < b; ++phase) fill(phase, &kernels[static_cast<size_t>(phase * taps)]);
    for (int64_t i = 0; i < out; ++i) {
        const int64_t phase = i % b, start = i / b * a + first_of(phase);
        if (!kept) fill(phase, kernels.data());
        const double* kernel = &kernels[static_cast<size_t>(kept ? phase * taps : 0)];
        for (int64_t c = 0; c < channels; ++c) {
            double sum = 0;
            for (int64_t n = std::max<int64_t>(0, -start); n < std::min(taps, length - start); ++n)
                sum += kernel[n] * wave.data[static_cast<size_t>(c * length + start + n)];
            y.data[static_cast<size_t>(c * out + i)] = static_cast<float>(sum);
        }
    }
    return y;
}

Array log_mel(const Array& wave, int64_t bins) {
    constexpr int64_t half = analysis_window / 2, lines = half + 1;
    const int64_t channels = wave.dim(0), length = wave.dim(1), frames = 1 + length / analysis_hop;
    if (length <= half)
        throw Error(ErrorCode::invalid_request,
                    "[sound] " + std::to_string(length) +
                        " samples at 16 kHz are too short to analyse; at least 513 are needed");
    const std::vector<double> filters = mel_filters(bins);
    std::vector<double> window(static_cast<size_t>(analysis_window));
    for (int64_t i = 0; i < analysis_window; ++i)
        window[static_cast<size_t>(i)] = 0.5 - 0.5 * std::cos(2 * pi * static_cast<double>(i) / analysis_window);
    Array mel{{channels, frames, bins}, {}};
    mel.data.reserve(static_cast<size_t>(channels * frames * bins));
    std::vector<std::complex<double>> spectrum(static_cast<size_t>(analysis_window));
    std::vector<double> magnitude(static_cast<size_t>(lines));
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t f = 0; f < frames; ++f) {
            for (int64_t i = 0; i < analysis_window; ++i) {
                int64_t at = f * analysis_hop + i - half;
                if (at < 0) at = -at;
                if (at >= length) at = 2 * (length - 1) - at;
                spectrum[static_cast<size_t>(i)] =
                    window[static_cast<size_t>(i)] * wave.data[static_cast<size_t>(c * length + at)];
            }
            fourier_transform(spectrum);
            for (int64_t k = 0; k < lines; ++k)
                magnitude[static_cast<size_t>(k)] = std::abs(spectrum[static_cast<size_t>(k)]);
            for (int64_t j = 0; j < bins; ++j) {
                const double* filter = &filters[static_cast<size_t>(j * lines)];
                const double sum = std::inner_product(magnitude.begin(), magnitude.end(), filter, 0.0);
                mel.data.push_back(static_cast<float>(std::log(std::max(sum, 1e-5))));
            }
        }
    return mel;
}

}  // namespace sdltx
