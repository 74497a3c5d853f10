// Tokens that are appended to a stream and do not count for all others alike (conditioning.md 6.3; ltx-core
// VideoConditionByReferenceLatent and its attention mask).
#pragma once

#include <cstdint>
#include <vector>

#include "base/export.h"

namespace sdltx {

// A group and the tokens of the clip see each other as strongly as the weight of each of its tokens says, 0 to 1; a
// group sees itself, and no other tokens that were appended. What came before the first group is seen by the clip.
struct TokenGroups {
    struct Group {
        int64_t first;               // token; the group ends where the next begins
        std::vector<float> weights;  // of its tokens
    };
    int64_t target = 0;  // tokens of the clip, which are the first
    std::vector<Group> groups{};

    bool empty() const { return groups.empty(); }
};

// What is added to the scores of all heads, the logarithm of those weights, in few rows: see AttentionBias.
struct TokenBias {
    std::vector<float> rows;     // (rows, tokens)
    std::vector<int32_t> which;  // (tokens)
    std::vector<float> own;      // (tokens)
    int64_t count;               // keys that it is for
};
// groups: not empty.
SDLTX_EXPORT TokenBias bias_of(const TokenGroups& groups, int64_t tokens);
// Row i of the whole mask (tokens).
SDLTX_EXPORT std::vector<float> mask_row(const TokenBias& bias, int64_t token);

}  // namespace sdltx
