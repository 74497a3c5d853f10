#include "encoder.h"

#include <algorithm>

#include "ggml/attention.h"

namespace sdltx {

namespace {

// Pairs that do not turn have the frequency 0; exponents go by the whole head.
AttentionKind kind_of(const Gemma4Config::Kind& kind, int64_t window) {
    AttentionKind k{kind.head_dim, kind.key_value_heads, window, rotary_frequencies(kind.head_dim, kind.rope_theta)};
    std::fill(k.frequencies.begin() + kind.rotated_pairs, k.frequencies.end(), 0.0);
    return k;
}

TowerShape shape_of(const Gemma4Config& c) {
    return {c.hidden_size,
            c.num_hidden_layers,
            c.vocab_size,
            c.rms_norm_eps,
            {kind_of(c.sliding, c.sliding_window), kind_of(c.full, 0)}};
}

// Without them a tower computes something, and it is wrong.
void check_scalars(const ModelFiles& files, int64_t layers) {
    int64_t missing = 0;
    for (int64_t i = 0; i < layers; ++i)
        missing += !files.find("language_model.model.layers." + std::to_string(i) + ".layer_scalar");
    if (missing)
        throw Error(ErrorCode::model_mismatch,
                    "[" + files.find("language_model.model.embed_tokens.weight")->file->path() + "] " +
                        std::to_string(missing) + " of " + std::to_string(layers) +
                        " layers of Gemma 4 lack 'layer_scalar' (layer_output_scale in GGUF files), without which its "
                        "states are wrong; use a file that kept them");
}

}  // namespace

Gemma4Encoder::Gemma4Encoder(const ModelFiles& files, Workspace& workspace)
    : Gemma4Encoder(files, workspace, Gemma4Config::load(files)) {}

Gemma4Encoder::Gemma4Encoder(const ModelFiles& files, Workspace& workspace, const Gemma4Config& c)
    : TextTower(files, workspace, shape_of(c)), config_(c) {
    check_scalars(files, c.num_hidden_layers);
    const int64_t hidden = c.hidden_size;
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
        const bool global = c.global[static_cast<size_t>(i)];
        const Gemma4Config::Kind& kind = global ? c.full : c.sliding;
        Layer l{};
        static_cast<TowerLayer&>(l) = declare_layer(
            i, {c.num_attention_heads, kind.key_value_heads, kind.head_dim, c.intermediate_size, !global, 0});
        l.layer_scalar = weights().laid_out(
            "layers." + std::to_string(i) + ".layer_scalar", {1}, {hidden},
            [hidden](const float* stored, float* laid_out) { std::fill_n(laid_out, hidden, *stored); });
        layers_.push_back(l);
    }
    declare_norm(0);
}

int32_t Gemma4Encoder::embedded(int32_t id) const {
    const auto& media = config_.placeholders;
    return std::find(media.begin(), media.end(), id) == media.end() ? id : 0;
}

ggml_tensor* Gemma4Encoder::layer(Plan& g, const Tensors& t, size_t index) const {
    ggml_context* ctx = g.ctx();
    const Layer& l = layers_[index];
    const bool global = config_.global[index];
    const Gemma4Config::Kind& kind = global ? config_.full : config_.sliding;
    const int64_t n = t.h->ne[1], d = kind.head_dim, h_kv = kind.key_value_heads, h_q = config_.num_attention_heads;
    const auto heads = [&](ggml_tensor* x, int64_t count) { return ggml_reshape_3d(ctx, x, d, count, n); };
    const auto normed = [&](ggml_tensor* x, ggml_tensor* weight) {
        return normed_heads(g, x, weight, d, t.cos[global], t.sin[global], eps());
    };

    ggml_tensor* x = rms_norm(g, t.h, l.input_layernorm, eps());                // [hidden, n]
    ggml_tensor* keys = heads(linear(g, l.k_proj, x), h_kv);                    // [d, Hkv, n]
    ggml_tensor* values = global ? keys : heads(linear(g, l.v_proj, x), h_kv);  // [d, Hkv, n]
    ggml_tensor* q = normed(heads(linear(g, l.q_proj, x), h_q), l.q_norm);      // [d, H, n]
    ggml_tensor* k = normed(keys, l.k_norm);                                    // [d, Hkv, n]
    ggml_tensor* v = rms_norm(g, values, nullptr, eps());                       // [d, Hkv, n]
    ggml_tensor* a = attention(g, q, k, v, t.mask[global], 1.0f, l.q_proj.w->type == GGML_TYPE_F32);
    return ggml_mul(ctx, behind_attention(g, l, t.h, ggml_reshape_2d(ctx, a, d * h_q, n)), l.layer_scalar);
}

}  // namespace sdltx
