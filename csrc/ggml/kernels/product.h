// The parts of the table; kernels.h says what they do.
#pragma once

#include "kernels.h"

namespace sdltx::kernels {

int64_t packed_units(int64_t columns);
void pack_rows(const float* x, int64_t stride, int64_t columns, int64_t rows, void* packed, Share share);
size_t product_scratch(int64_t columns, int64_t matrices, int threads, bool exact);
void product(const ProductJob& job, Share share);

}  // namespace sdltx::kernels
