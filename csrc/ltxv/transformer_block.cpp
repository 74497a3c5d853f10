#include "transformer_block.h"

#include <optional>

namespace sdltx {

namespace {

// Where all tokens share what modulates them.
const TokenRuns& everywhere() {
    static const TokenRuns one = {{0, 0, 0}};
    return one;
}

// The steps of one stream. D = its width, T = its tokens.
struct StreamSteps {
    Plan& g;
    const StreamBlock& b;
    StreamTensors& s;
    float eps;
    Modulation rows;  // of BlockRow

    StreamSteps(Plan& plan, const StreamBlock& block, StreamTensors& stream, float epsilon)
        : g(plan),
          b(block),
          s(stream),
          eps(epsilon),
          rows(plan, block.scale_shift_table, 0, block.scale_shift_table->ne[1], stream.adaln, *stream.runs) {}

    ggml_tensor* normed(BlockRow scale, BlockRow shift, const std::string& name) const {  // [D, T]
        return g.stage(rows.modulate_normed(g, s.x, scale, shift, eps), name + ".in");
    }
    void self_attention(bool values_only) const {
        ggml_tensor* y = normed(scale_msa, shift_msa, b.attn1.name);                       // [D, T]
        y = attend(g, b.attn1, y, y, s.self_rope, s.self_rope, values_only, s.self_bias);  // [D, T]
        s.x = rows.add_gated(g, s.x, y, gate_msa);
    }
    void text_attention() const {
        const Keys keys = s.text.k ? s.text : text_keys(g, b, s);
        if (b.prompt_scale_shift_table) {
            ggml_tensor* query = normed(scale_q, shift_q, b.attn2.name);  // [D, T]
            s.x = rows.add_gated(g, s.x, attend(g, b.attn2, query, keys, {}), gate_q);
        } else {
            ggml_tensor* query = g.stage(rms_norm(g, s.x, nullptr, eps), b.attn2.name + ".in");  // [D, T]
            s.x = ggml_add(g.ctx(), s.x, attend(g, b.attn2, query, keys, {}));
        }
    }
    void feed(const std::string& result) const {
        ggml_tensor* y = feed_forward(g, b.ff, normed(scale_mlp, shift_mlp, b.ff.name));  // [D, T]
        s.x = g.stage(rows.add_gated(g, s.x, y, gate_mlp), result);
    }
};

// Both streams look at what the other was before either is changed.
void cross_modal_attention(Plan& g, const StreamSteps& video, const StreamSteps& audio,
                           const BlockPerturbation& without) {
    const auto rows = [&](const StreamSteps& of) {
        return Modulation(g, of.b.cross_scale_shift_table, 0, cross_rows, of.s.cross_adaln, *of.s.runs);
    };
    const auto add_gated = [&](const StreamSteps& to, ggml_tensor* y) {
        const Modulation gate(g, to.b.cross_scale_shift_table, cross_rows, 1, to.s.cross_gate, everywhere());
        to.s.x = gate.add_gated(g, to.s.x, y, 0);
    };
    const Modulation of_video = rows(video), of_audio = rows(audio);
    ggml_tensor *xv = video.s.x, *xa = audio.s.x;         // [Dv, Tv] and [Da, Ta]
    const auto v = [&](CrossRow scale, CrossRow shift) {  // [Dv, Tv]
        return of_video.modulate_normed(g, xv, scale, shift, video.eps);
    };
    const auto a = [&](CrossRow scale, CrossRow shift) {  // [Da, Ta]
        return of_audio.modulate_normed(g, xa, scale, shift, audio.eps);
    };
    if (!without.freeze_video) {
        ggml_tensor* query = g.stage(v(scale_a2v, shift_a2v), video.b.cross.name + ".in");
        add_gated(video,
                  attend(g, video.b.cross, query, a(scale_a2v, shift_a2v), video.s.cross_rope, audio.s.cross_rope));
    }
    if (!without.freeze_audio) {
        ggml_tensor* query = g.stage(a(scale_v2a, shift_v2a), audio.b.cross.name + ".in");
        add_gated(audio,
                  attend(g, audio.b.cross, query, v(scale_v2a, shift_v2a), audio.s.cross_rope, video.s.cross_rope));
    }
}

}  // namespace

int64_t block_rows(const TransformerConfig& config) {
    return config.cross_attention_adaln ? all_block_rows : static_cast<int64_t>(shift_q);
}

StreamBlock declare_stream_block(Weights& weights, const TransformerConfig& config, int64_t index, bool video) {
    const StreamConfig &c = video ? config.video : config.audio, &other = video ? config.audio : config.video;
    const StreamConfig& cross = config.audio;  // both directions have its heads
    const std::string at = "transformer_blocks." + std::to_string(index) + ".", own = at + (video ? "" : "audio_");
    const double eps = config.norm_eps;
    const bool gated = config.gated_attention;
    const unsigned use = video ? for_video : for_audio;
    weights.begin_use(use);
    StreamBlock b{};
    b.attn1 = declare_attention(weights, own + "attn1", c.dim(), c.dim(), c.heads, c.head_dim, eps, gated);
    b.attn2 = declare_attention(weights, own + "attn2", c.dim(), c.context_dim, c.heads, c.head_dim, eps, gated);
    weights.begin_use(for_video | for_audio);
    b.cross = declare_attention(weights, at + (video ? "audio_to_video_attn" : "video_to_audio_attn"), c.dim(),
                                other.dim(), cross.heads, cross.head_dim, eps, gated);
    weights.begin_use(use);
    b.ff = declare_feed_forward(weights, own + "ff", c.dim(), c.ff_bias);
    b.scale_shift_table = weights.vector(own + "scale_shift_table", {block_rows(config), c.dim()});
    if (config.cross_attention_adaln)
        b.prompt_scale_shift_table = weights.vector(own + "prompt_scale_shift_table", {prompt_rows, c.dim()});
    weights.begin_use(for_video | for_audio);
    b.cross_scale_shift_table =
        weights.vector(at + "scale_shift_table_a2v_ca_" + (video ? "video" : "audio"), {cross_rows + 1, c.dim()});
    return b;
}

Keys text_keys(Plan& g, const StreamBlock& block, const StreamTensors& stream) {
    ggml_tensor* context = stream.context;
    if (block.prompt_scale_shift_table) {
        const Modulation rows(g, block.prompt_scale_shift_table, 0, prompt_rows, stream.prompt_adaln, everywhere());
        context = rows.modulate(g, context, scale_kv, shift_kv);  // [context_dim, rows]
    }
    return keys_of(g, block.attn2, context, {});
}

void run_block(Plan& g, const Block& block, StreamTensors* video, StreamTensors* audio,
               const BlockPerturbation& without, float eps) {
    const auto attend_to_self_and_text = [](const StreamSteps& s, bool values_only) {
        s.self_attention(values_only);
        s.text_attention();
    };
    std::optional<StreamSteps> v, a;
    if (video) v.emplace(g, block.video, *video, eps);
    if (audio) a.emplace(g, block.audio, *audio, eps);
    if (v && !without.freeze_video) attend_to_self_and_text(*v, without.skip_video_self_attn);
    if (a && !without.freeze_audio) attend_to_self_and_text(*a, without.skip_audio_self_attn);
    if (v && a && !without.skip_cross_modal) cross_modal_attention(g, *v, *a, without);
    if (v && !without.freeze_video) v->feed(block.name + ".video");
    if (a && !without.freeze_audio) a->feed(block.name + ".audio");
}

}  // namespace sdltx
