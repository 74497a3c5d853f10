#include "schedule.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "base/types.h"

namespace sdltx {

std::vector<float> distilled_sigmas() {
    return {1.0f, 0.99375f, 0.9875f, 0.98125f, 0.975f, 0.909375f, 0.725f, 0.421875f, 0.0f};
}

std::vector<float> distilled_stage_2_sigmas() { return {0.909375f, 0.725f, 0.421875f, 0.0f}; }

std::vector<float> ltx2_sigmas(int64_t steps, const Ltx2Schedule& options) {
    if (steps < 1 || steps > 1000)
        throw Error(ErrorCode::invalid_request,
                    "[sample] " + std::to_string(steps) + " steps are not possible; give 1 to 1000");
    constexpr double base_shift = 0.95, max_shift = 2.05, base_tokens = 1024, max_tokens = 4096;
    const double mu = base_shift + (static_cast<double>(options.tokens) - base_tokens) * (max_shift - base_shift) /
                                       (max_tokens - base_tokens);
    std::vector<double> s;
    for (int64_t i = 0; i < steps; ++i) {
        const double t = 1.0 - static_cast<double>(i) / static_cast<double>(steps);
        s.push_back(std::exp(mu) / (std::exp(mu) + 1.0 / t - 1.0));
    }
    // A single step has nothing to stretch: its only sigma is 1.
    if (options.stretch && steps > 1) {
        const double z = (1.0 - s.back()) / (1.0 - options.terminal);
        for (double& v : s) v = 1.0 - (1.0 - v) / z;
    }
    s.push_back(0.0);
    return {s.begin(), s.end()};
}

void check_sigmas(const std::vector<float>& sigmas) {
    if (sigmas.size() < 2)
        throw Error(ErrorCode::invalid_request,
                    "[sample] a list of sigmas needs at least two values, such as 1, 0.5, 0");
    if (sigmas.size() > 1001) throw Error(ErrorCode::invalid_request, "[sample] more than 1000 steps are not possible");
    for (size_t i = 0; i < sigmas.size(); ++i)
        if (!(sigmas[i] >= 0 && sigmas[i] <= 1) || (i && !(sigmas[i] < sigmas[i - 1])))
            throw Error(ErrorCode::invalid_request, "[sample] sigmas must fall from at most 1 to at least 0; value " +
                                                        std::to_string(i + 1) + " is " + spell_number(sigmas[i]));
}

}  // namespace sdltx
