// Safetensors in eight-bit floats, as ComfyUI and the releases write them: a weight, a scale beside it, and marks that
// say so (files-in-the-wild.md section 1). Values are weight times scale, as the reference dequantises.
#pragma once

#include <cstdint>

#include "model_file.h"

namespace sdltx {

bool is_fp8(const TensorInfo& info);

// Finds the scales of the weights of `file` and takes what only other programs need for used. Throws Error(model_file)
// for a scale of a wrong shape and Error(model_mismatch) for quantisations that this version does not read, by name.
void attach_scales(ModelFile& file);

// Elements [first, first + count) of an FP8 tensor, in the order in which they are stored.
void decode_fp8(const TensorInfo& info, int64_t first, int64_t count, float* to);

}  // namespace sdltx
