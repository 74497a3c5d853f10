#include "transformer.h"

#include <algorithm>
#include <cmath>

namespace sdltx {

namespace {

constexpr int64_t sinusoid_size = 256;
constexpr int64_t block_rows = 9, prompt_rows = 2, cross_rows = 4;
constexpr size_t kept_graphs = 4;  // as many as guidance has kinds of passes

// The distinct values of `timesteps` in order of appearance, and which of them each token has. Few tokens differ (a
// token is conditioned or not), so modulation is computed once per value.
std::vector<float> distinct_values(const std::vector<float>& timesteps, std::vector<int32_t>* index = nullptr) {
    std::vector<float> values;
    for (float t : timesteps) {
        auto it = std::find(values.begin(), values.end(), t);
        if (index) index->push_back(static_cast<int32_t>(it - values.begin()));
        if (it == values.end()) values.push_back(t);
    }
    return values;
}

// cos then sin of t * 1e4^(-k/128) (ltx-core get_timestep_embedding), (values, 256).
std::vector<float> sinusoid(const std::vector<float>& values, double scale) {
    std::vector<float> out;
    for (float v : values) {
        const float t = v * static_cast<float>(scale);
        for (int part = 0; part < 2; ++part)
            for (int64_t k = 0; k < sinusoid_size / 2; ++k) {
                const float f =
                    static_cast<float>(std::exp(-std::log(1e4) * static_cast<double>(k) / (sinusoid_size / 2)));
                const double angle = static_cast<double>(t * f);
                out.push_back(static_cast<float>(part ? std::sin(angle) : std::cos(angle)));
            }
    }
    return out;
}

// Modulation rows [D, rows, K] for K distinct timesteps, and how tokens pick theirs.
struct Modulation {
    ggml_tensor* rows;
    ggml_tensor* rows1;  // 1 + rows
    ggml_tensor* index;  // null when K = 1: all tokens share one

    ggml_tensor* pick(Graph& g, ggml_tensor* of, int64_t row) const {
        ggml_tensor* v =
            ggml_view_2d(g.ctx(), of, of->ne[0], of->ne[2], of->nb[2], static_cast<size_t>(row) * of->nb[1]);
        return index ? ggml_get_rows(g.ctx(), v, index) : v;
    }
    ggml_tensor* get(Graph& g, int64_t row) const { return pick(g, rows, row); }
    ggml_tensor* scale1(Graph& g, int64_t row) const { return pick(g, rows1, row); }
};

// table [D, r] (its first `rows` rows from `first` on) + adaln output [rows*D, K]
Modulation modulation(Graph& g, ggml_tensor* table, int64_t first, int64_t rows, ggml_tensor* adaln,
                      ggml_tensor* index) {
    ggml_context* ctx = g.ctx();
    ggml_tensor* part =
        ggml_view_2d(ctx, table, table->ne[0], rows, table->nb[1], static_cast<size_t>(first) * table->nb[1]);
    ggml_tensor* m = ggml_add(ctx, ggml_reshape_3d(ctx, adaln, table->ne[0], rows, adaln->ne[1]), part);
    return {m, ggml_scale_bias(ctx, m, 1.0f, 1.0f), index};
}

}  // namespace

// Graph tensors of one stream while a graph is built, and its inputs afterwards.
struct Transformer::StreamGraph {
    ggml_tensor *tokens = nullptr, *context = nullptr, *sinusoid = nullptr, *sigma_sinusoid = nullptr,
                *gate_sinusoid = nullptr, *index = nullptr;
    Rope self_rope, cross_rope;
    std::vector<float> positions;  // whose tables the graph holds

    ggml_tensor* x = nullptr;         // the stream
    ggml_tensor* embedded = nullptr;  // emb(tau)
    ggml_tensor *adaln = nullptr, *prompt_adaln = nullptr, *cross_adaln = nullptr, *cross_gate = nullptr;
    ggml_tensor* velocity = nullptr;
    int64_t num_tokens = 0, distinct = 0, context_rows = 0;
};

struct Transformer::Built {
    Perturbation perturbation;
    std::vector<std::string> traced;
    Trace* trace;
    StreamGraph video, audio;
    std::unique_ptr<Graph> graph;
};

Transformer::Transformer(const ModelFiles& files, const Backend& backend, const TransformerConfig& config)
    : backend_(backend), config_(config), weights_(files, backend, "transformer", "model.diffusion_model.") {
    video_ = declare_stream(true);
    audio_ = declare_stream(false);
}

Transformer::~Transformer() = default;

void Transformer::release() { graphs_.clear(); }

Transformer::AdaLayerNormSingle Transformer::declare_adaln(const std::string& name, int64_t dim, int64_t rows) {
    AdaLayerNormSingle a;
    a.name = name;
    a.dim = dim;
    a.rows = rows;
    a.linear_1 = declare_linear(weights_, name + ".emb.timestep_embedder.linear_1", sinusoid_size, dim);
    a.linear_2 = declare_linear(weights_, name + ".emb.timestep_embedder.linear_2", dim, dim);
    a.linear = declare_linear(weights_, name + ".linear", dim, rows * dim);
    return a;
}

Transformer::Stream Transformer::declare_stream(bool video) {
    Stream s;
    s.prefix = video ? "" : "audio_";
    s.config = video ? config_.video : config_.audio;
    const StreamConfig& c = s.config;
    const StreamConfig& other = video ? config_.audio : config_.video;
    // Both directions of the cross attention have the audio stream's heads.
    const StreamConfig& cross = config_.audio;
    const std::string kind = video ? "video" : "audio";
    s.patchify_proj = declare_linear(weights_, s.prefix + "patchify_proj", c.in_channels, c.dim());
    s.proj_out = declare_linear(weights_, s.prefix + "proj_out", c.dim(), c.out_channels);
    s.adaln = declare_adaln(s.prefix + "adaln_single", c.dim(), block_rows);
    s.prompt_adaln = declare_adaln(s.prefix + "prompt_adaln_single", c.dim(), prompt_rows);
    s.cross_scale_shift_adaln = declare_adaln("av_ca_" + kind + "_scale_shift_adaln_single", c.dim(), cross_rows);
    s.cross_gate_adaln =
        declare_adaln(video ? "av_ca_a2v_gate_adaln_single" : "av_ca_v2a_gate_adaln_single", c.dim(), 1);
    s.scale_shift_table = weights_.vector(s.prefix + "scale_shift_table", {2, c.dim()});
    for (int64_t i = 0; i < config_.num_layers; ++i) {
        const std::string at = "transformer_blocks." + std::to_string(i) + ".";
        const double eps = config_.norm_eps;
        StreamBlock b{};
        b.attn1 = declare_attention(weights_, at + s.prefix + "attn1", c.dim(), c.dim(), c.heads, c.head_dim, eps);
        b.attn2 =
            declare_attention(weights_, at + s.prefix + "attn2", c.dim(), c.context_dim, c.heads, c.head_dim, eps);
        b.cross = declare_attention(weights_, at + (video ? "audio_to_video_attn" : "video_to_audio_attn"), c.dim(),
                                    other.dim(), cross.heads, cross.head_dim, eps);
        b.ff = declare_feed_forward(weights_, at + s.prefix + "ff", c.dim());
        b.scale_shift_table = weights_.vector(at + s.prefix + "scale_shift_table", {block_rows, c.dim()});
        b.prompt_scale_shift_table =
            weights_.vector(at + s.prefix + "prompt_scale_shift_table", {prompt_rows, c.dim()});
        b.cross_scale_shift_table = weights_.vector(at + "scale_shift_table_a2v_ca_" + kind, {cross_rows + 1, c.dim()});
        s.blocks.push_back(b);
    }
    return s;
}

void Transformer::stream_inputs(Graph& g, const Stream& s, StreamGraph& sg, const ModalityInput& in, int64_t distinct,
                                bool cross) const {
    ggml_context* ctx = g.ctx();
    const StreamConfig& c = s.config;
    sg.num_tokens = in.positions->tokens;
    sg.context_rows = in.context->dim(0);
    sg.distinct = distinct;
    auto name = [&](const char* n) { return s.prefix + n; };
    sg.tokens = g.input(name("tokens"), GGML_TYPE_F32, {c.in_channels, sg.num_tokens});
    sg.context = g.input(name("context"), GGML_TYPE_F32, {c.context_dim, sg.context_rows});
    sg.sinusoid = g.input(name("timesteps"), GGML_TYPE_F32, {sinusoid_size, distinct});
    sg.sigma_sinusoid = g.input(name("sigma"), GGML_TYPE_F32, {sinusoid_size, 1});
    if (distinct > 1) sg.index = g.input(name("timestep_index"), GGML_TYPE_I32, {sg.num_tokens});
    sg.self_rope = rope_input(g, name("self_rope"), c.dim(), c.heads, sg.num_tokens);
    if (cross) {
        sg.gate_sinusoid = g.input(name("other_sigma"), GGML_TYPE_F32, {sinusoid_size, 1});
        sg.cross_rope = rope_input(g, name("cross_rope"), config_.audio.dim(), config_.audio.heads, sg.num_tokens);
    }

    auto embed = [&](const AdaLayerNormSingle& a, ggml_tensor* t) {
        return g.stage(linear(g, a.linear_2, ggml_silu(ctx, linear(g, a.linear_1, t))), a.name + ".emb");
    };
    auto rows = [&](const AdaLayerNormSingle& a, ggml_tensor* emb) {
        return g.stage(linear(g, a.linear, ggml_silu(ctx, emb)), a.name);
    };
    sg.x = g.stage(linear(g, s.patchify_proj, sg.tokens), name("patchify_proj"));
    sg.embedded = embed(s.adaln, sg.sinusoid);
    sg.adaln = rows(s.adaln, sg.embedded);
    sg.prompt_adaln = rows(s.prompt_adaln, embed(s.prompt_adaln, sg.sigma_sinusoid));
    if (cross) {
        // Scale and shift follow the stream's own timesteps, the gate the other stream's sigma.
        sg.cross_adaln = rows(s.cross_scale_shift_adaln, embed(s.cross_scale_shift_adaln, sg.sinusoid));
        sg.cross_gate = rows(s.cross_gate_adaln, embed(s.cross_gate_adaln, sg.gate_sinusoid));
    }
}

// Self attention, then text attention; the table's rows are shift, scale, gate for each, and for the feed-forward.
void Transformer::run_block(Graph& g, const Stream& s, size_t i, StreamGraph& sg, bool values_only) const {
    ggml_context* ctx = g.ctx();
    const StreamBlock& b = s.blocks[i];
    const float eps = static_cast<float>(config_.norm_eps);
    const Modulation m = modulation(g, b.scale_shift_table, 0, block_rows, sg.adaln, sg.index);
    const Modulation p = modulation(g, b.prompt_scale_shift_table, 0, prompt_rows, sg.prompt_adaln, nullptr);

    ggml_tensor* y = modulate(g, rms_norm(g, sg.x, nullptr, eps), m.scale1(g, 1), m.get(g, 0));
    g.stage(y, b.attn1.name + ".in");
    sg.x = ggml_add(ctx, sg.x,
                    ggml_mul(ctx, attend(g, b.attn1, y, y, sg.self_rope, sg.self_rope, values_only), m.get(g, 2)));

    y = modulate(g, rms_norm(g, sg.x, nullptr, eps), m.scale1(g, 7), m.get(g, 6));
    g.stage(y, b.attn2.name + ".in");
    ggml_tensor* context = modulate(g, sg.context, p.scale1(g, 1), p.get(g, 0));
    sg.x = ggml_add(ctx, sg.x, ggml_mul(ctx, attend(g, b.attn2, y, context, {}, {}), m.get(g, 8)));
}

ggml_tensor* Transformer::velocity_head(Graph& g, const Stream& s, const StreamGraph& sg) const {
    ggml_context* ctx = g.ctx();
    // Both rows add the same embedding, before the activation of the block's adaln.
    auto row = [&](int64_t r) {
        return ggml_add(ctx, sg.embedded,
                        ggml_view_1d(ctx, s.scale_shift_table, s.scale_shift_table->ne[0],
                                     static_cast<size_t>(r) * s.scale_shift_table->nb[1]));
    };
    auto pick = [&](ggml_tensor* t) { return sg.index ? ggml_get_rows(ctx, t, sg.index) : t; };
    ggml_tensor* x = ggml_norm(ctx, sg.x, static_cast<float>(config_.norm_eps));
    x = modulate(g, x, pick(ggml_scale_bias(ctx, row(1), 1.0f, 1.0f)), pick(row(0)));
    x = linear(g, s.proj_out, x);
    return g.output(g.stage(x, s.prefix + "proj_out"), s.prefix + "proj_out");
}

Transformer::Built& Transformer::build(const ModalityInput& video, const ModalityInput* audio,
                                       const Perturbation& perturbation, Trace* trace) {
    const int64_t video_distinct = static_cast<int64_t>(distinct_values(*video.timesteps).size());
    const int64_t audio_distinct = audio ? static_cast<int64_t>(distinct_values(*audio->timesteps).size()) : 0;
    const std::vector<std::string> traced = trace ? trace->patterns : std::vector<std::string>{};
    auto fits = [](const StreamGraph& sg, const ModalityInput* in, int64_t distinct) {
        return in ? sg.num_tokens == in->positions->tokens && sg.context_rows == in->context->dim(0) &&
                        sg.distinct == distinct
                  : sg.num_tokens == 0;
    };
    for (auto& b : graphs_)
        if (b->perturbation == perturbation && b->trace == trace && b->traced == traced &&
            fits(b->video, &video, video_distinct) && fits(b->audio, audio, audio_distinct))
            return *b;

    // A graph for other shapes will hardly be wanted again, and its memory will.
    graphs_.erase(
        std::remove_if(
            graphs_.begin(), graphs_.end(),
            [&](auto& b) { return !fits(b->video, &video, video_distinct) || !fits(b->audio, audio, audio_distinct); }),
        graphs_.end());
    if (graphs_.size() >= kept_graphs) graphs_.erase(graphs_.begin());

    auto built = std::make_unique<Built>();
    built->perturbation = perturbation;
    built->traced = traced;
    built->trace = trace;
    built->graph = std::make_unique<Graph>(backend_, "transformer", trace);
    Graph& g = *built->graph;
    const float eps = static_cast<float>(config_.norm_eps);
    const bool cross = audio && !perturbation.skip_cross_modal;
    StreamGraph &v = built->video, &a = built->audio;
    stream_inputs(g, video_, v, video, video_distinct, cross);
    if (audio) stream_inputs(g, audio_, a, *audio, audio_distinct, cross);
    auto listed = [](const std::vector<int>& blocks, size_t i) {
        return std::find(blocks.begin(), blocks.end(), static_cast<int>(i)) != blocks.end();
    };

    for (size_t i = 0; i < video_.blocks.size(); ++i) {
        ggml_context* ctx = g.ctx();
        const std::string at = "transformer_blocks." + std::to_string(i);
        run_block(g, video_, i, v, listed(perturbation.skip_video_self_attn, i));
        if (audio) run_block(g, audio_, i, a, listed(perturbation.skip_audio_self_attn, i));
        if (cross) {
            const StreamBlock &vb = video_.blocks[i], &ab = audio_.blocks[i];
            // Rows here are scale first: 0, 1 for audio to video, 2, 3 for video to audio. Both norms come before
            // either update.
            const Modulation vm = modulation(g, vb.cross_scale_shift_table, 0, cross_rows, v.cross_adaln, v.index);
            const Modulation am = modulation(g, ab.cross_scale_shift_table, 0, cross_rows, a.cross_adaln, a.index);
            const Modulation v_gate = modulation(g, vb.cross_scale_shift_table, cross_rows, 1, v.cross_gate, nullptr);
            const Modulation a_gate = modulation(g, ab.cross_scale_shift_table, cross_rows, 1, a.cross_gate, nullptr);
            ggml_tensor* nv = rms_norm(g, v.x, nullptr, eps);
            ggml_tensor* na = rms_norm(g, a.x, nullptr, eps);
            ggml_tensor* query = g.stage(modulate(g, nv, vm.scale1(g, 0), vm.get(g, 1)), vb.cross.name + ".in");
            ggml_tensor* dv =
                attend(g, vb.cross, query, modulate(g, na, am.scale1(g, 0), am.get(g, 1)), v.cross_rope, a.cross_rope);
            query = g.stage(modulate(g, na, am.scale1(g, 2), am.get(g, 3)), ab.cross.name + ".in");
            ggml_tensor* da =
                attend(g, ab.cross, query, modulate(g, nv, vm.scale1(g, 2), vm.get(g, 3)), a.cross_rope, v.cross_rope);
            v.x = ggml_add(ctx, v.x, ggml_mul(ctx, dv, v_gate.get(g, 0)));
            a.x = ggml_add(ctx, a.x, ggml_mul(ctx, da, a_gate.get(g, 0)));
        }
        auto finish = [&](const Stream& s, StreamGraph& sg, const char* kind) {
            const StreamBlock& b = s.blocks[i];
            const Modulation m = modulation(g, b.scale_shift_table, 0, block_rows, sg.adaln, sg.index);
            ggml_tensor* y =
                g.stage(modulate(g, rms_norm(g, sg.x, nullptr, eps), m.scale1(g, 4), m.get(g, 3)), b.ff.name + ".in");
            sg.x = ggml_add(ctx, sg.x, ggml_mul(ctx, feed_forward(g, b.ff, y), m.get(g, 5)));
            g.stage(sg.x, at + "." + kind);
        };
        finish(video_, v, "video");
        if (audio) finish(audio_, a, "audio");
    }
    v.velocity = velocity_head(g, video_, v);
    if (audio) a.velocity = velocity_head(g, audio_, a);
    g.finish();
    graphs_.push_back(std::move(built));
    return *graphs_.back();
}

void Transformer::set_inputs(const Stream& s, StreamGraph& sg, Graph& g, const ModalityInput& in,
                             const ModalityInput* other) const {
    if (in.positions->axes < static_cast<int64_t>(s.config.max_pos.size()))
        throw Error(ErrorCode::invalid_request,
                    "[transformer] positions need " + std::to_string(s.config.max_pos.size()) + " axes");
    std::vector<int32_t> index;
    const std::vector<float> distinct = distinct_values(*in.timesteps, &index);
    g.set(sg.tokens, *in.tokens);
    g.set(sg.context, in.context->data);
    g.set(sg.sinusoid, sinusoid(distinct, config_.timestep_scale));
    g.set(sg.sigma_sinusoid, sinusoid({in.sigma}, config_.timestep_scale));
    if (sg.index) g.set(sg.index, index);
    if (sg.gate_sinusoid) g.set(sg.gate_sinusoid, sinusoid({other->sigma}, config_.av_gate_timestep_scale));
    if (sg.positions == in.positions->bounds) return;
    const RopeTable self = rope_table(*in.positions, s.config.dim(), s.config.max_pos, config_.rope_theta);
    g.set(sg.self_rope.cos, self.cos);
    g.set(sg.self_rope.sin, self.sin);
    if (sg.cross_rope.cos) {
        // Across streams only time counts, on the longer of the two scales.
        const double seconds = std::max(config_.video.max_pos[0], config_.audio.max_pos[0]);
        const RopeTable cross = rope_table(*in.positions, config_.audio.dim(), {seconds}, config_.rope_theta);
        g.set(sg.cross_rope.cos, cross.cos);
        g.set(sg.cross_rope.sin, cross.sin);
    }
    sg.positions = in.positions->bounds;
}

Velocity Transformer::velocity(const ModalityInput& video, const ModalityInput* audio, const Perturbation& perturbation,
                               Trace* trace) {
    for (auto* list : {&perturbation.skip_video_self_attn, &perturbation.skip_audio_self_attn})
        for (int block : *list)
            if (block < 0 || block >= config_.num_layers)
                throw Error(ErrorCode::invalid_request, "[transformer] there is no block " + std::to_string(block) +
                                                            " to skip; the model has blocks 0 to " +
                                                            std::to_string(config_.num_layers - 1));
    Built& b = build(video, audio, perturbation, trace);
    set_inputs(video_, b.video, *b.graph, video, audio);
    if (audio) set_inputs(audio_, b.audio, *b.graph, *audio, &video);
    b.graph->run();
    Velocity out;
    out.video = b.graph->get(b.video.velocity);
    if (audio) out.audio = b.graph->get(b.audio.velocity);
    return out;
}

}  // namespace sdltx
