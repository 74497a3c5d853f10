// The attention module of LTX-2 (transformer.md section 5; ltx-core Attention), shared by transformer and connectors.
#pragma once

#include <string>

#include "ggml/attention.h"
#include "ggml/linear.h"
#include "ggml/ops.h"

namespace sdltx {

struct Attention {
    std::string name;  // the reference's module path
    int64_t heads, head_dim;
    Linear to_q, to_k, to_v, to_out;
    Linear to_gate_logits;         // none in LTX-2.0
    ggml_tensor *q_norm, *k_norm;  // over all heads together
    float eps;
};

// Rotary tables on the device: cos and sin [head_dim/2, heads, T]. Null tensors = no rotation.
struct Rope {
    ggml_tensor* cos = nullptr;
    ggml_tensor* sin = nullptr;
};
Rope rope_tensors(State& state, const std::string& name, int64_t dim, int64_t heads, int64_t tokens);

Attention declare_attention(Weights& weights, const std::string& name, int64_t query_dim, int64_t context_dim,
                            int64_t heads, int64_t head_dim, double eps, bool gated);

// What queries are compared with and what they get; null where there are none.
struct Keys {
    ggml_tensor *k = nullptr, *v = nullptr;  // [head_dim, H, S]
};
// context [context_dim, S]. Stages below the module path: "k" and "v".
Keys keys_of(Plan& g, const Attention& a, ggml_tensor* context, const Rope& rope);

// x [query_dim, T] -> [query_dim, T]. Stages below the module path: "q", "attention" and the path itself. bias: where
// some tokens count less for others; null: all alike.
ggml_tensor* attend(Plan& g, const Attention& a, ggml_tensor* x, const Keys& keys, const Rope& rope,
                    const AttentionBias* bias = nullptr);

// The same with the keys of context [context_dim, S]. With `values_only` (STG) the softmax is skipped and each token
// keeps its own value; S = T then.
ggml_tensor* attend(Plan& g, const Attention& a, ggml_tensor* x, ggml_tensor* context, const Rope& rope,
                    const Rope& context_rope, bool values_only = false, const AttentionBias* bias = nullptr);

// w2 gelu_tanh(w1 x + b1) + b2 (ltx-core FeedForward), with or without biases; [D, T] -> [D, T].
struct FeedForward {
    std::string name;
    Linear up, down;
};
FeedForward declare_feed_forward(Weights& weights, const std::string& name, int64_t dim, bool bias = true);
ggml_tensor* feed_forward(Plan& g, const FeedForward& f, ggml_tensor* x);

}  // namespace sdltx
