// The Gemma-3 text tower (text.md section 2; transformers' Gemma3TextModel): token ids to all hidden states.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "ggml/linear.h"
#include "ggml/model_file.h"
#include "ggml/ops.h"
#include "ggml/weights.h"
#include "ggml/workspace.h"

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

class Gemma3Encoder {
 public:
    Gemma3Encoder(const ModelFiles& files, Workspace& workspace);

    const Gemma3Config& config() const { return config_; }
    Weights& weights() { return weights_; }

    // ids (N) without padding -> hidden states (L+1, N, hidden): scaled embeddings, the residual after each layer but
    // the last, and the final norm of the last. Attention is relative and padding is masked in the reference, so the
    // real tokens at positions 0..N-1 give the same numbers. The weights outside the layers must be there. `on_layer`
    // is called after every layer with how many are done. Stages: "embed_tokens", "layers.<i>", "norm".
    Array encode(const std::vector<int32_t>& ids, Trace* trace, const std::function<void(int64_t done)>& on_layer = {});
    // What it takes for so many ids, its result on the host included; nothing is allocated.
    MemoryUse measure(int64_t tokens);

 private:
    struct Layer {
        ggml_tensor *input_layernorm, *post_attention_layernorm, *pre_feedforward_layernorm,
            *post_feedforward_layernorm;
        ggml_tensor *q_norm, *k_norm;
        Linear q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj;
        bool global;
    };
    // What lives from layer to layer, for n tokens; [0] belongs to layers with a window, [1] to global ones.
    struct Tensors {
        Tensors(const Backend& backend, const Gemma3Config& config, int64_t n, size_t device);
        size_t device;
        State state;
        ggml_tensor* ids;              // [n]
        ggml_tensor* h;                // [hidden, n]
        ggml_tensor *cos[2], *sin[2];  // [head_dim/2, 1, n]
        ggml_tensor* mask[2];          // [n, n] F16
    };
    std::unique_ptr<Plan> embedding(const Tensors& t, Trace* trace) const;
    std::unique_ptr<Plan> layer(const Tensors& t, size_t index, Trace* trace) const;

    Gemma3Config config_;
    Workspace& workspace_;
    Weights weights_;
    ggml_tensor* embed_tokens_;
    ggml_tensor* norm_;
    std::vector<Layer> layers_;
};

// All hidden states of some ids, for tests: opens, loads, encodes and closes, on the CPU.
SDLTX_EXPORT Array encode_tokens(const ModelFiles& files, const std::vector<int32_t>& ids, bool exact);

}  // namespace sdltx
