// Safetensors quantised as ComfyUI and the releases do it: weights in eight or four bits, scales beside them, and marks
// that say so (files-in-the-wild.md section 1).
#pragma once

#include <cstdint>
#include <vector>

#include "model_file.h"

namespace sdltx {

// Finds out how the weights of the files of a set are encoded, whose scales may lie in another of them, and takes what
// only other programs need for used. Throws Error(model_file) for scales of a wrong shape or that are not all there,
// and Error(model_mismatch) for encodings that this version does not read, by name.
void attach_encodings(const std::vector<ModelFile*>& set);

// Elements [first, first + count) in the order of the rows; whole groups if they are rotated. `scaled`: times
// what TensorInfo::scale says.
void decode(const TensorInfo& info, int64_t first, int64_t count, float* to, bool scaled = true);

// Whether our kernels multiply a matrix as it lies in its file: FP8 and MXFP8, whose tensors have fp8_type.
bool computed_as_stored(const TensorInfo& info);

// What an encoded matrix is computed in, as pack() writes it: without loss, but for rotated ones. TensorInfo::scale is
// left out; it belongs to the results of a product.
ggml_type packed_type(const TensorInfo& info);
void pack(const TensorInfo& info, void* to);

// Elements of a row of MXFP8 that share a power of two, and of NVFP4 that share a scale.
constexpr int64_t mxfp8_block = 32, nvfp4_block = 16;

// Number i of a scale, which is F32, F16 or BF16.
float scale_at(const TensorInfo& scale, int64_t i);

}  // namespace sdltx
