// The configuration of Gemma 4 as the text encoder of LTX-2.5 (ltx-2.5.md section 4).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gemma/config.h"

namespace sdltx {

struct Gemma4Config : TowerSizes {
    // Layers with a window, and global ones.
    struct Kind {
        int64_t head_dim, key_value_heads;
        double rope_theta;
        int64_t rotated_pairs;  // of head_dim / 2, the first ones
    };
    int64_t vocab_size;
    Kind sliding, full;
    std::vector<bool> global;  // per layer
    double rms_norm_eps;
    std::vector<int32_t> placeholders;  // ids of pictures, sound and films, which are embedded as padding is
    std::string version;                // "gemma4-12b-ltx-v1"; empty if the files do not say

    // Whether the text encoder among the files is one, of whatever size.
    static bool is_among(const ModelFiles& files);
    // From the first of: `gemma_config` of the file that holds the tower, its GGUF metadata, config.json beside it, the
    // shapes of Gemma 4 12B. Throws Error(model_mismatch) for the other members of the family, by name.
    static Gemma4Config load(const ModelFiles& files);
};

}  // namespace sdltx
