#include "guidance.h"

#include <algorithm>
#include <cmath>

namespace sdltx {

namespace {

double dot(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
    return sum;
}

// Unbiased, over the whole stream.
double deviation(const std::vector<float>& x) {
    double mean = 0, sum = 0;
    for (float v : x) mean += v;
    mean /= static_cast<double>(x.size());
    for (float v : x) sum += (v - mean) * (v - mean);
    return std::sqrt(sum / static_cast<double>(x.size() - 1));
}

// What is added to the estimate for each unit of scale above one.
std::vector<float> away_from_negative(const Guidance& g, const std::vector<float>& plain,
                                      const std::vector<float>& negative) {
    constexpr double least = 1e-8;  // of a square
    const double of_negative =
        g.method == CfgMethod::star ? dot(plain, negative) / (dot(negative, negative) + least) : 1;
    std::vector<float> delta(plain.size());
    for (size_t i = 0; i < delta.size(); ++i) delta[i] = static_cast<float>(plain[i] - of_negative * negative[i]);
    if (g.method != CfgMethod::apg) return delta;
    double factor = 1;
    if (g.apg_threshold > 0) {
        const double length = std::sqrt(dot(delta, delta));
        factor = length > 0 ? std::min(1.0, g.apg_threshold / length) : 1;
    }
    const double parallel = factor * dot(delta, plain) / (dot(plain, plain) + least);
    for (size_t i = 0; i < delta.size(); ++i)
        delta[i] = static_cast<float>(factor * delta[i] + (g.apg_eta - 1) * parallel * plain[i]);
    return delta;
}

}  // namespace

std::vector<float> guide(const Guidance& g, const GuidanceScales& scales, const PassEstimates& x0) {
    const std::vector<float>& plain = *x0.plain;
    std::vector<float> y = plain;
    if (x0.negative && scales.cfg != 1) {
        const std::vector<float> delta = away_from_negative(g, plain, *x0.negative);
        for (size_t i = 0; i < y.size(); ++i) y[i] += static_cast<float>(scales.cfg - 1) * delta[i];
    }
    if (x0.perturbed && scales.stg != 0)
        for (size_t i = 0; i < y.size(); ++i) y[i] += static_cast<float>(scales.stg) * (plain[i] - (*x0.perturbed)[i]);
    if (x0.isolated && scales.modality != 1)
        for (size_t i = 0; i < y.size(); ++i)
            y[i] += static_cast<float>(scales.modality - 1) * (plain[i] - (*x0.isolated)[i]);
    if (scales.rescale != 0 && y.size() > 1) {
        const double own = deviation(y), ratio = own > 0 ? deviation(plain) / own : 1;
        const auto factor = static_cast<float>(scales.rescale * ratio + (1 - scales.rescale));
        for (float& v : y) v *= factor;
    }
    return y;
}

}  // namespace sdltx
