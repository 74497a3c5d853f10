// The Gemma-3 text tower (text.md section 2; transformers' Gemma3TextModel): token ids to all hidden states.
#pragma once

#include <vector>

#include "gemma/tower.h"

namespace sdltx {

struct Gemma3Config {
    int64_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
        vocab_size;
    int64_t sliding_window;
    std::vector<bool> global;  // per layer: attention without the window
    double query_pre_attn_scalar, rms_norm_eps, rope_theta, rope_local_base_freq, rope_factor;

    // From the GGUF that holds the tower, else from config.json beside the files.
    static Gemma3Config load(const ModelFiles& files);
};

class Gemma3Encoder : public TextTower {
 public:
    Gemma3Encoder(const ModelFiles& files, Workspace& workspace);

 private:
    struct Layer {
        ggml_tensor *input_layernorm, *post_attention_layernorm, *pre_feedforward_layernorm,
            *post_feedforward_layernorm;
        ggml_tensor *q_norm, *k_norm;
        Linear q_proj, k_proj, v_proj, o_proj;
        GatedFeedForward mlp;
    };
    Gemma3Encoder(const ModelFiles& files, Workspace& workspace, const Gemma3Config& config);
    ggml_tensor* layer(Plan& g, const Tensors& t, size_t index) const override;

    Gemma3Config config_;
    std::vector<Layer> layers_;
};

}  // namespace sdltx
