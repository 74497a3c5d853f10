// The Gemma-3 text tower (text.md section 2; transformers' Gemma3TextModel): token ids to all hidden states.
#pragma once

#include <vector>

#include "gemma/config.h"
#include "gemma/tower.h"

namespace sdltx {

struct Gemma3Config : TowerSizes {
    int64_t num_key_value_heads, head_dim, vocab_size;
    std::vector<bool> global;  // per layer: attention without the window
    double query_pre_attn_scalar, rms_norm_eps, rope_theta, rope_local_base_freq, rope_factor;

    // From the GGUF that holds the tower, else from config.json beside the files.
    static Gemma3Config load(const ModelFiles& files);
};

class Gemma3Encoder : public TextTower {
 public:
    Gemma3Encoder(const ModelFiles& files, Workspace& workspace);

 private:
    Gemma3Encoder(const ModelFiles& files, Workspace& workspace, const Gemma3Config& config);
    ggml_tensor* layer(Plan& g, const Tensors& t, size_t index) const override;
    size_t kind_of(size_t index) const override { return config_.global[index]; }

    Gemma3Config config_;
    std::vector<TowerLayer> layers_;
};

}  // namespace sdltx
