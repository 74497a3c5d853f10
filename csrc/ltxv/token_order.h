// The order in which the transformer sees tokens. What it does to tokens that share a timestep goes run by run; a mask
// in space cuts a stream into hundreds of them, and nothing but their positions tells tokens apart.
#pragma once

#include <vector>

#include "sample_state.h"

namespace sdltx {

class TokenOrder {
 public:
    // Tokens as they are, unless those of the clip are cut into many runs: then those that share a mask come together.
    explicit TokenOrder(const StreamState& s);

    Positions positions(const Positions& positions) const;
    // (T, channels) or (T), in this order, and back.
    std::vector<float> there(const std::vector<float>& values) const;
    std::vector<float> back(const std::vector<float>& values) const;

 private:
    std::vector<int64_t> order_;  // numbers of tokens; empty: as they are
};

}  // namespace sdltx
