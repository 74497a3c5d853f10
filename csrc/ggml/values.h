// The values of stored tensors, whatever type they are stored in.
#pragma once

#include <optional>

#include "base/types.h"
#include "model_file.h"

namespace sdltx {

// Whether this version knows what the bytes mean.
bool readable(const TensorInfo& info);

// Elements [first, first + count) in the order in which they are stored, as F32. For block types both are multiples of
// the block.
void read_values(const TensorInfo& info, int64_t first, int64_t count, float* to);

// `count` values between any type that ggml reads, and F32, F16 or BF16.
void convert_values(const void* from, ggml_type from_type, void* to, ggml_type to_type, int64_t count);

// Elements [0, count) as F32 or BF16, some at a time.
void convert_values(const TensorInfo& info, void* to, ggml_type to_type, int64_t count);

// A tensor of one element, of any type of numbers; nothing if it is none.
std::optional<double> number_of(const TensorInfo& info);

// A whole tensor as F32. Throws Error(model_mismatch) for a type that is not readable().
SDLTX_EXPORT Array to_float(const TensorInfo& info);

}  // namespace sdltx
