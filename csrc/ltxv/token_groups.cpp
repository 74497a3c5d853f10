#include "token_groups.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sdltx {

TokenBias bias_of(const TokenGroups& groups, int64_t tokens) {
    constexpr float hidden = -std::numeric_limits<float>::infinity();
    const auto of_clip = static_cast<size_t>(groups.target), all = static_cast<size_t>(tokens),
               before = static_cast<size_t>(groups.groups.front().first);
    TokenBias bias{std::vector<float>(all, 0.0f), std::vector<int32_t>(all, 0), std::vector<float>(all, 0.0f),
                   groups.target};
    int32_t number = 0;
    // A row for tokens [first, end), with `seen` of the appended ones.
    const auto add_row = [&](size_t first, size_t end, size_t seen_first, size_t seen_end) {
        const size_t at = bias.rows.size();
        bias.rows.resize(at + all, hidden);
        std::fill_n(bias.rows.begin() + static_cast<ptrdiff_t>(at), of_clip, 0.0f);
        std::fill(bias.rows.begin() + static_cast<ptrdiff_t>(at + seen_first),
                  bias.rows.begin() + static_cast<ptrdiff_t>(at + seen_end), 0.0f);
        std::fill(bias.which.begin() + static_cast<ptrdiff_t>(first), bias.which.begin() + static_cast<ptrdiff_t>(end),
                  ++number);
    };
    if (before > of_clip) add_row(of_clip, before, of_clip, before);
    for (size_t i = 0; i < groups.groups.size(); ++i) {
        const auto& group = groups.groups[i];
        const auto first = static_cast<size_t>(group.first);
        for (size_t j = 0; j < group.weights.size(); ++j)
            bias.rows[first + j] = bias.own[first + j] = group.weights[j] > 0 ? std::log(group.weights[j]) : hidden;
        add_row(first, first + group.weights.size(), first, first + group.weights.size());
    }
    return bias;
}

std::vector<float> mask_row(const TokenBias& bias, int64_t token) {
    const auto tokens = static_cast<ptrdiff_t>(bias.which.size());
    const auto i = static_cast<size_t>(token);
    const auto row = bias.rows.begin() + bias.which[i] * tokens;
    std::vector<float> mask(row, row + tokens);
    for (int64_t k = 0; k < bias.count; ++k) mask[static_cast<size_t>(k)] += bias.own[i];
    return mask;
}

}  // namespace sdltx
