#include "transformer.h"

#include "base/log.h"

namespace sdltx {

Transformer::Transformer(const ModelFiles& files, const Backend& backend, const TransformerConfig& config)
    : config_(config), weights_(files, backend, "transformer", "model.diffusion_model.") {
    video_ = declare_stream(true);
    audio_ = declare_stream(false);
    weights_.begin_use(for_video);
    constexpr const char* marker = "keyframes_abs_pos_embedding";
    if (const TensorInfo* t = files.find(std::string("model.diffusion_model.") + marker);
        config.keyframes_embedding && t) {
        const int64_t dim = config.video.dim();  // some files leave out the axis of length 1
        keyframes_abs_pos_embedding_ =
            weights_.vector(marker, t->shape.size() == 1 ? std::vector<int64_t>{dim} : std::vector<int64_t>{1, dim});
    } else if (config.keyframes_embedding) {
        log(30, std::string("[load] the transformer lacks ") + marker +
                    ", as early copies of LTX-2.5 do; its first frames will be worse: get the file again");
    }
    for (int64_t i = 0; i < config.num_layers; ++i) {
        weights_.begin_block();
        blocks_.push_back({"transformer_blocks." + std::to_string(i), declare_stream_block(weights_, config, i, true),
                           declare_stream_block(weights_, config, i, false)});
    }
}

void Transformer::use_streams(bool video, bool audio) {
    weights_.leave_out((video ? 0 : for_video) | (audio ? 0 : for_audio));
}

Transformer::Stream Transformer::declare_stream(bool video) {
    weights_.begin_use(video ? for_video : for_audio);
    Stream s;
    s.prefix = video ? "" : "audio_";
    s.config = video ? config_.video : config_.audio;
    const StreamConfig& c = s.config;
    const auto adaln = [&](const std::string& name, int64_t rows) {
        return declare_adaln(weights_, name, c.dim(), rows);
    };
    s.patchify_proj = declare_linear(weights_, s.prefix + "patchify_proj", c.in_channels, c.dim());
    s.proj_out = declare_linear(weights_, s.prefix + "proj_out", c.dim(), c.out_channels);
    s.adaln = adaln(s.prefix + "adaln_single", block_rows(config_));
    if (config_.prompt_adaln) s.prompt_adaln = adaln(s.prefix + "prompt_adaln_single", prompt_rows);
    weights_.begin_use(for_video | for_audio);
    s.cross_scale_shift_adaln =
        adaln(std::string("av_ca_") + (video ? "video" : "audio") + "_scale_shift_adaln_single", cross_rows);
    s.cross_gate_adaln = adaln(video ? "av_ca_a2v_gate_adaln_single" : "av_ca_v2a_gate_adaln_single", 1);
    weights_.begin_use(video ? for_video : for_audio);
    s.scale_shift_table = weights_.vector(s.prefix + "scale_shift_table", {2, c.dim()});
    return s;
}

ggml_tensor* Transformer::patchify(Plan& g, const Stream& s, ggml_tensor* tokens) const {
    return g.stage(linear(g, s.patchify_proj, tokens), s.prefix + "patchify_proj");
}

ggml_tensor* Transformer::mark(Plan& g, ggml_tensor* x, const TokenRuns& runs) const {
    if (!marks() || runs.empty()) return x;
    ggml_tensor* marker = ggml_reshape_1d(g.ctx(), g.adjusted(keyframes_abs_pos_embedding_), x->ne[0]);
    return add_to_tokens(g, x, marker, runs);
}

ggml_tensor* Transformer::head(Plan& g, const Stream& s, ggml_tensor* x, ggml_tensor* embedded,
                               const TokenRuns& runs) const {
    ggml_context* ctx = g.ctx();
    // Both rows add the same embedding, before the activation of the blocks' adaln.
    ggml_tensor* table = g.adjusted(s.scale_shift_table);
    const auto row = [&](int64_t i) {  // [D, K]
        return ggml_add(ctx, embedded, ggml_view_1d(ctx, table, table->ne[0], static_cast<size_t>(i) * table->nb[1]));
    };
    ggml_tensor* scale1 = ggml_scale_bias(ctx, row(1), 1.0f, 1.0f);
    x = modulate(g, ggml_norm(ctx, x, static_cast<float>(config_.norm_eps)), scale1, row(0), runs);  // [D, T]
    return g.stage(linear(g, s.proj_out, x), s.prefix + "proj_out");  // [out_channels, T]
}

}  // namespace sdltx
