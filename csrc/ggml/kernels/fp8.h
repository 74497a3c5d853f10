// Rows of FP8 and MXFP8 weights (OCP 8-bit Floating Point 1.0, OCP Microscaling Formats 1.0).
#pragma once

#include "kernels.h"
#include "simd.h"

namespace sdltx::kernels {

// Values [first, first + count) of a row, which lie at `from`, as units of a product; or, if it returns false, as
// floats that are still to be converted.
template <typename P>
bool unpack_fp8(const WeightRows& w, const uint8_t* from, int64_t row, int64_t first, int64_t count, float* floats,
                typename P::Unit* to);

}  // namespace sdltx::kernels
