// Rows of stored weights as units of a product.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace sdltx::kernels {

// Values [first, first + count) of a row of one of its matrices, `first` where a block begins; `floats` has room for
// them. What is missing of the last unit is 0.
template <typename P>
void unpack(const WeightRows& w, int64_t matrix, int64_t row, int64_t first, int64_t count, float* floats,
            typename P::Unit* to);

}  // namespace sdltx::kernels
