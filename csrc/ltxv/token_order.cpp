#include "token_order.h"

#include <algorithm>
#include <numeric>

namespace sdltx {

TokenOrder::TokenOrder(const StreamState& s) {
    constexpr int64_t few = 16;  // runs, which cost less than moving tokens
    const auto clip = s.mask.begin() + s.groups.target;
    int64_t runs = 1;
    for (auto m = s.mask.begin(); m != clip && m + 1 != clip; ++m) runs += m[0] != m[1];
    if (runs <= few) return;
    order_.resize(s.mask.size());
    std::iota(order_.begin(), order_.end(), 0);
    // Tokens that were appended stay where they are: groups of them are told by their places.
    std::stable_sort(order_.begin(), order_.begin() + s.groups.target, [&](int64_t a, int64_t b) {
        return s.mask[static_cast<size_t>(a)] < s.mask[static_cast<size_t>(b)];
    });
}

Positions TokenOrder::positions(const Positions& p) const {
    if (order_.empty()) return p;
    Positions ordered = p;
    for (int64_t axis = 0; axis < p.axes; ++axis)
        for (int64_t t = 0; t < p.tokens; ++t)
            for (int64_t end = 0; end < 2; ++end)
                ordered.bounds[static_cast<size_t>((axis * p.tokens + t) * 2 + end)] =
                    p.bounds[static_cast<size_t>((axis * p.tokens + order_[static_cast<size_t>(t)]) * 2 + end)];
    for (size_t t = 0; t < p.marked.size(); ++t) ordered.marked[t] = p.marked[static_cast<size_t>(order_[t])];
    return ordered;
}

std::vector<float> TokenOrder::there(const std::vector<float>& values) const {
    if (order_.empty()) return values;
    const auto width = static_cast<int64_t>(values.size() / order_.size());
    std::vector<float> ordered;
    ordered.reserve(values.size());
    for (int64_t token : order_) {
        const auto row = values.begin() + token * width;
        ordered.insert(ordered.end(), row, row + width);
    }
    return ordered;
}

std::vector<float> TokenOrder::back(const std::vector<float>& values) const {
    if (order_.empty() || values.empty()) return values;
    const auto width = static_cast<int64_t>(values.size() / order_.size());
    std::vector<float> natural(values.size());
    for (size_t i = 0; i < order_.size(); ++i)
        std::copy_n(values.begin() + static_cast<int64_t>(i) * width, width, natural.begin() + order_[i] * width);
    return natural;
}

}  // namespace sdltx
