// What a LoRA's file says, in the spellings of the tools that write such files (checkpoints.md section 4).
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "ggml/model_file.h"
#include "ggml/weights.h"

namespace sdltx {

// What a file adds to one weight of the transformer.
struct LoraAddition {
    const TensorInfo *down = nullptr, *up = nullptr;  // to a matrix: scale up down
    const TensorInfo* whole = nullptr;                // to a weight of any shape: scale whole
    float scale = 1;
};

// Additions by the names of the transformer's weights. Every tensor of the file has a use here, is in `unknown`, or is
// refused.
struct LoraContents {
    std::map<std::string, std::vector<LoraAddition>> additions;
    int64_t modules = 0;            // of the transformer that are changed
    std::set<std::string> unknown;  // modules of something else, such as a text encoder
};

// Names are those of the releases, diffusers, PEFT, kohya's tools and LyCORIS; alpha is taken from its tensors, from
// the header, and from PEFT's adapter_config.json beside the file. `.diff`, `.diff_b` and norms are added as they are,
// with strength alone. Throws Error(model_mismatch) for DoRA, LoHa, LoKr and whatever else is no sum, for a module that
// the file has twice, and for shapes of another model; Error(model_file) for values that are none.
LoraContents read_lora(const ModelFile& file, const std::vector<Weights::Tensor>& transformer);

}  // namespace sdltx
