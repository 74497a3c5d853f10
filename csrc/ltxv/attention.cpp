#include "attention.h"

#include <algorithm>
#include <cmath>

#include "ggml/pieces.h"

namespace sdltx {

Rope rope_tensors(State& state, const std::string& name, int64_t dim, int64_t heads, int64_t tokens) {
    const int64_t half = dim / heads / 2;
    return {state.tensor(name + ".cos", GGML_TYPE_F32, {half, heads, tokens}),
            state.tensor(name + ".sin", GGML_TYPE_F32, {half, heads, tokens})};
}

Attention declare_attention(Weights& weights, const std::string& name, int64_t query_dim, int64_t context_dim,
                            int64_t heads, int64_t head_dim, double eps, bool gated) {
    const int64_t inner = heads * head_dim;
    Attention a{};
    a.name = name;
    a.heads = heads;
    a.head_dim = head_dim;
    a.eps = static_cast<float>(eps);
    a.to_q = declare_linear(weights, name + ".to_q", query_dim, inner);
    a.to_k = declare_linear(weights, name + ".to_k", context_dim, inner);
    a.to_v = declare_linear(weights, name + ".to_v", context_dim, inner);
    a.to_out = declare_linear(weights, name + ".to_out.0", inner, query_dim);
    if (gated) a.to_gate_logits = declare_linear(weights, name + ".to_gate_logits", query_dim, heads);
    a.q_norm = weights.vector(name + ".q_norm.weight", {inner});
    a.k_norm = weights.vector(name + ".k_norm.weight", {inner});
    return a;
}

namespace {

// Queries or keys [head_dim, H, n] of n tokens, all of whose heads are normed together.
ggml_tensor* normed(Plan& g, const Attention& a, const Linear& to, ggml_tensor* from, ggml_tensor* weight,
                    const Rope& rope) {
    ggml_tensor* y = linear(g, to, from);
    y = ggml_reshape_3d(g.ctx(), y, y->ne[0], 1, y->ne[1]);
    return normed_heads(g, y, g.adjusted(weight), a.head_dim, rope.cos, rope.sin, a.eps);
}

ggml_tensor* values_of(Plan& g, const Attention& a, ggml_tensor* context) {  // [head_dim, H, S]
    ggml_tensor* v = linear(g, a.to_v, context);
    return g.stage(ggml_reshape_3d(g.ctx(), v, a.head_dim, a.heads, context->ne[1]), a.name + ".v");
}

// What heads have got, o [head_dim, H, T], gated and put together.
ggml_tensor* out_of(Plan& g, const Attention& a, ggml_tensor* x, ggml_tensor* o) {
    ggml_context* ctx = g.ctx();
    const int64_t tokens = x->ne[1];
    g.stage(o, a.name + ".attention");
    if (a.to_gate_logits.w) {
        ggml_tensor* gate = ggml_scale(ctx, ggml_sigmoid(ctx, linear(g, a.to_gate_logits, x)), 2.0f);  // [H, T]
        o = ggml_mul(ctx, o, ggml_reshape_3d(ctx, gate, 1, a.heads, tokens));
    }
    o = ggml_reshape_2d(ctx, o, a.head_dim * a.heads, tokens);
    return g.stage(linear(g, a.to_out, o), a.name);  // [query_dim, T]
}

}  // namespace

Keys keys_of(Plan& g, const Attention& a, ggml_tensor* context, const Rope& rope) {
    ggml_tensor* v = values_of(g, a, context);
    return {g.stage(normed(g, a, a.to_k, context, a.k_norm, rope), a.name + ".k"), v};
}

ggml_tensor* attend(Plan& g, const Attention& a, ggml_tensor* x, const Keys& keys, const Rope& rope,
                    const AttentionBias* bias) {
    ggml_tensor* q = g.stage(normed(g, a, a.to_q, x, a.q_norm, rope), a.name + ".q");
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.head_dim)));
    const bool exact = a.to_q.w->type == GGML_TYPE_F32;
    return out_of(g, a, x,
                  bias ? attention(g, q, keys.k, keys.v, *bias, scale, exact)
                       : attention(g, q, keys.k, keys.v, nullptr, scale, exact));
}

ggml_tensor* attend(Plan& g, const Attention& a, ggml_tensor* x, ggml_tensor* context, const Rope& rope,
                    const Rope& context_rope, bool values_only, const AttentionBias* bias) {
    if (values_only) return out_of(g, a, x, values_of(g, a, context));
    return attend(g, a, x, keys_of(g, a, context, context_rope), rope, bias);
}

FeedForward declare_feed_forward(Weights& weights, const std::string& name, int64_t dim, bool bias) {
    FeedForward f{name, declare_linear(weights, name + ".net.0.proj", dim, 4 * dim, bias),
                  declare_linear(weights, name + ".net.2", 4 * dim, dim, bias)};
    f.down.wide_range = true;
    return f;
}

ggml_tensor* feed_forward(Plan& g, const FeedForward& f, ggml_tensor* x) {
    // Both products for some rows at a time: what lies between them is four times as wide.
    constexpr int64_t enough_rows = 2048;  // for any device to be busy
    int64_t work = work_of(g, f.up, x->ne[1]) + work_of(g, f.down, x->ne[1]);
    if (evens_out(g, f.down)) work = std::max(work, g.backend().patience() / enough_rows);
    ggml_tensor* y = by_rows(g, x, f.down.w->ne[1], work, [&](ggml_tensor* part) {
        return linear(g, f.down, linear(g, f.up, part, Activation::gelu_tanh));
    });
    return g.stage(y, f.name);
}

}  // namespace sdltx
