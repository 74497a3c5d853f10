#include "transformer_run.h"

#include <algorithm>
#include <array>

namespace sdltx {

// One stream of a run of T tokens, K of whose timesteps are distinct.
struct TransformerRun::StreamRun {
    const Transformer::Stream& stream;
    Positions positions;
    // Constant over the calls.
    std::vector<ggml_tensor*> contexts{};  // by pass: [context_dim, rows]
    Rope self_rope{}, cross_rope{};
    // Set by each call.
    ggml_tensor* tokens = nullptr;          // [in_channels, T]
    ggml_tensor* sigma_sinusoid = nullptr;  // [256, 1]
    ggml_tensor* other_sinusoid = nullptr;  // [256, 1], of the other stream's sigma
    ggml_tensor* sinusoid = nullptr;        // [256, K]
    ggml_tensor* index = nullptr;           // [T], null when K = 1
    // Written by the prologue; every block replaces x.
    std::vector<ggml_tensor*> x{};        // by pass: [D, T]
    ggml_tensor* embedded = nullptr;      // [D, K]
    ggml_tensor* adaln = nullptr;         // [block_rows D, K]
    ggml_tensor* prompt_adaln = nullptr;  // [prompt_rows D, 1]
    ggml_tensor* cross_adaln = nullptr;   // [cross_rows D, K]
    ggml_tensor* cross_gate = nullptr;    // [D, 1]

    int64_t num_tokens() const { return positions.tokens; }
    StreamTensors tensors(size_t pass) const {
        return {x[pass], contexts[pass], adaln, prompt_adaln, cross_adaln, cross_gate, index, self_rope, cross_rope};
    }
};

// What depends on the number of distinct timesteps and on what is traced.
struct TransformerRun::Plans {
    explicit Plans(const Backend& backend) : state(backend, "transformer") {}

    int64_t video_distinct = 0, audio_distinct = 0;
    std::vector<std::string> traced;
    State state;
    std::unique_ptr<Plan> prologue;
    std::vector<std::vector<std::unique_ptr<Plan>>> blocks;  // by pass and index
    struct Epilogue {
        std::unique_ptr<Plan> plan;
        ggml_tensor *video = nullptr, *audio = nullptr;  // velocities
    };
    std::vector<Epilogue> epilogues;  // by pass
};

TransformerRun::TransformerRun(Transformer& transformer, Workspace& workspace, const Positions& video,
                               const Positions* audio, const std::vector<Pass>& passes, Trace* trace)
    : transformer_(transformer),
      workspace_(workspace),
      passes_(passes),
      trace_(trace),
      cross_(audio &&
             std::any_of(passes.begin(), passes.end(), [](const Pass& p) { return !p.perturbation.skip_cross_modal; })),
      state_(workspace.backend(), "transformer") {
    const int64_t layers = transformer.config().num_layers;
    for (auto& pass : passes)
        for (auto* list : {&pass.perturbation.skip_video_self_attn, &pass.perturbation.skip_audio_self_attn})
            for (int block : *list)
                if (block < 0 || block >= layers)
                    throw Error(ErrorCode::invalid_request, "[transformer] there is no block " + std::to_string(block) +
                                                                " to skip; the model has blocks 0 to " +
                                                                std::to_string(layers - 1));
    video_ = begin_stream(transformer.video(), video);
    if (audio) audio_ = begin_stream(transformer.audio(), *audio);
}

TransformerRun::~TransformerRun() = default;

std::unique_ptr<TransformerRun::StreamRun> TransformerRun::begin_stream(const Transformer::Stream& stream,
                                                                        const Positions& positions) {
    const StreamConfig &c = stream.config, &audio = transformer_.config().audio;
    if (positions.axes < static_cast<int64_t>(c.max_pos.size()))
        throw Error(ErrorCode::invalid_request,
                    "[transformer] positions need " + std::to_string(c.max_pos.size()) + " axes");
    auto s = std::make_unique<StreamRun>(StreamRun{stream, positions});
    const auto tensor = [&](const char* name, int64_t width, int64_t count) {
        return state_.tensor(stream.prefix + name, GGML_TYPE_F32, {width, count});
    };
    s->tokens = tensor("tokens", c.in_channels, s->num_tokens());
    s->sigma_sinusoid = tensor("sigma", sinusoid_size, 1);
    s->prompt_adaln = tensor("prompt_adaln", prompt_rows * c.dim(), 1);
    for (auto& pass : passes_) {
        const Array& context = &stream == &transformer_.video() ? *pass.video_context : *pass.audio_context;
        s->contexts.push_back(tensor("context", c.context_dim, context.dim(0)));
        s->x.push_back(tensor("x", c.dim(), s->num_tokens()));
    }
    s->self_rope = rope_tensors(state_, stream.prefix + "self_rope", c.dim(), c.heads, s->num_tokens());
    if (cross_) {
        s->other_sinusoid = tensor("other_sigma", sinusoid_size, 1);
        s->cross_gate = tensor("cross_gate", c.dim(), 1);
        s->cross_rope = rope_tensors(state_, stream.prefix + "cross_rope", audio.dim(), audio.heads, s->num_tokens());
    }
    return s;
}

std::vector<TransformerRun::StreamRun*> TransformerRun::streams() const {
    if (audio_) return {video_.get(), audio_.get()};
    return {video_.get()};
}

void TransformerRun::set_distinct(int64_t video, int64_t audio) {
    const std::vector<std::string> traced = trace_ ? trace_->patterns : std::vector<std::string>{};
    if (plans_ && plans_->video_distinct == video && plans_->audio_distinct == audio && plans_->traced == traced)
        return;
    plans_ = std::make_unique<Plans>(workspace_.backend());
    plans_->video_distinct = video;
    plans_->audio_distinct = audio;
    plans_->traced = traced;
    plans_->blocks.resize(passes_.size());
    for (auto& of_pass : plans_->blocks) of_pass.resize(transformer_.blocks().size());
    plans_->epilogues.resize(passes_.size());
    for (StreamRun* s : streams()) {
        const int64_t k = s == video_.get() ? video : audio, dim = s->stream.config.dim();
        const auto tensor = [&](const char* name, int64_t width) {
            return plans_->state.tensor(s->stream.prefix + name, GGML_TYPE_F32, {width, k});
        };
        s->sinusoid = tensor("timesteps", sinusoid_size);
        s->embedded = tensor("embedded", dim);
        s->adaln = tensor("adaln", block_rows * dim);
        s->cross_adaln = cross_ ? tensor("cross_adaln", cross_rows * dim) : nullptr;
        s->index = k > 1 ? plans_->state.tensor(s->stream.prefix + "index", GGML_TYPE_I32, {s->num_tokens()}) : nullptr;
    }
}

Plan& TransformerRun::prologue() {
    if (plans_->prologue) return *plans_->prologue;
    plans_->prologue = std::make_unique<Plan>(workspace_.backend(), "transformer", trace_);
    Plan& g = *plans_->prologue;
    for (StreamRun* s : streams()) {
        const Transformer::Stream& w = s->stream;
        ggml_tensor* x = transformer_.patchify(g, w, s->tokens);  // [D, T]
        for (ggml_tensor* of_pass : s->x) g.store(x, of_pass);
        ggml_tensor* embedded = embed_timesteps(g, w.adaln, s->sinusoid);  // [D, K]
        g.store(embedded, s->embedded);
        g.store(modulation_rows(g, w.adaln, embedded), s->adaln);
        g.store(modulation_rows(g, w.prompt_adaln, embed_timesteps(g, w.prompt_adaln, s->sigma_sinusoid)),
                s->prompt_adaln);
        if (!cross_) continue;
        // Scale and shift follow the stream's own timesteps, the gate the other stream's sigma.
        const AdaLayerNormSingle &rows = w.cross_scale_shift_adaln, &gate = w.cross_gate_adaln;
        g.store(modulation_rows(g, rows, embed_timesteps(g, rows, s->sinusoid)), s->cross_adaln);
        g.store(modulation_rows(g, gate, embed_timesteps(g, gate, s->other_sinusoid)), s->cross_gate);
    }
    return g;
}

Plan& TransformerRun::block(size_t pass, size_t index) {
    std::unique_ptr<Plan>& plan = plans_->blocks[pass][index];
    if (plan) return *plan;
    const Perturbation& p = passes_[pass].perturbation;
    const auto listed = [&](const std::vector<int>& blocks) {
        return std::find(blocks.begin(), blocks.end(), static_cast<int>(index)) != blocks.end();
    };
    plan = std::make_unique<Plan>(workspace_.backend(), "transformer", trace_);
    StreamTensors video = video_->tensors(pass), audio;
    if (audio_) audio = audio_->tensors(pass);
    run_block(*plan, transformer_.blocks()[index], video, audio_ ? &audio : nullptr,
              {listed(p.skip_video_self_attn), listed(p.skip_audio_self_attn), p.skip_cross_modal},
              static_cast<float>(transformer_.config().norm_eps));
    plan->store(video.x, video_->x[pass]);
    if (audio_) plan->store(audio.x, audio_->x[pass]);
    return *plan;
}

Plan& TransformerRun::epilogue(size_t pass) {
    Plans::Epilogue& e = plans_->epilogues[pass];
    if (e.plan) return *e.plan;
    e.plan = std::make_unique<Plan>(workspace_.backend(), "transformer", trace_);
    const auto velocity = [&](const StreamRun& s) {
        ggml_tensor* v = transformer_.head(*e.plan, s.stream, s.x[pass], s.embedded, s.index);
        return e.plan->output(v, s.stream.prefix + "proj_out");
    };
    e.video = velocity(*video_);
    if (audio_) e.audio = velocity(*audio_);
    return *e.plan;
}

void TransformerRun::set_constants(StreamRun& s) {
    const TransformerConfig& c = transformer_.config();
    for (size_t i = 0; i < passes_.size(); ++i)
        state_.set(s.contexts[i], (&s == video_.get() ? passes_[i].video_context : passes_[i].audio_context)->data);
    const auto set = [&](const Rope& rope, int64_t dim, const std::vector<double>& max_pos) {
        const RopeTable table = rope_table(s.positions, dim, max_pos, c.rope_theta);
        state_.set(rope.cos, table.cos);
        state_.set(rope.sin, table.sin);
    };
    set(s.self_rope, s.stream.config.dim(), s.stream.config.max_pos);
    // Across streams only time counts, on the longer of the two scales.
    if (cross_) set(s.cross_rope, c.audio.dim(), {std::max(c.video.max_pos[0], c.audio.max_pos[0])});
}

void TransformerRun::set_input(StreamRun& s, const StreamInput& in, const StreamInput* other) {
    const TransformerConfig& c = transformer_.config();
    std::vector<int32_t> index;
    const std::vector<float> distinct = distinct_values(*in.timesteps, &index);
    state_.set(s.tokens, *in.tokens);
    state_.set(s.sigma_sinusoid, sinusoid({in.sigma}, c.timestep_scale));
    if (s.other_sinusoid) state_.set(s.other_sinusoid, sinusoid({other->sigma}, c.av_gate_timestep_scale));
    plans_->state.set(s.sinusoid, sinusoid(distinct, c.timestep_scale));
    if (s.index) plans_->state.set(s.index, index);
}

std::vector<Velocity> TransformerRun::velocities(const StreamInput& video, const StreamInput* audio,
                                                 const OnBlock& on_block) {
    if (!constants_set_)
        for (StreamRun* s : streams()) set_constants(*s);
    constants_set_ = true;
    const auto distinct = [](const StreamInput* in) {
        return in ? static_cast<int64_t>(distinct_values(*in->timesteps).size()) : 0;
    };
    set_distinct(distinct(&video), distinct(audio));
    set_input(*video_, video, audio);
    if (audio_) set_input(*audio_, *audio, &video);

    Weights& weights = transformer_.weights();
    const size_t blocks = transformer_.blocks().size(), passes = passes_.size();
    workspace_.run(prologue());
    for (size_t i = 0; i < blocks; ++i) {
        weights.enter(i);
        for (size_t pass = 0; pass < passes; ++pass)
            workspace_.run(block(pass, i), [&] {
                if (pass == 0 && i + 1 < blocks) weights.prefetch(i + 1);
            });
        weights.leave(i);
        if (on_block) on_block(static_cast<int64_t>(i + 1));
    }
    std::vector<Velocity> out(passes);
    for (size_t pass = 0; pass < passes; ++pass) {
        Plan& plan = epilogue(pass);
        workspace_.run(plan);
        out[pass].video = plan.get(plans_->epilogues[pass].video);
        if (audio_) out[pass].audio = plan.get(plans_->epilogues[pass].audio);
    }
    return out;
}

TransformerRun::Memory TransformerRun::measure(int64_t distinct) {
    set_distinct(distinct, audio_ ? distinct : 0);
    Memory memory;
    memory.inputs = state_.size() + plans_->state.size();
    const auto add = [&](Plan& plan) {
        const std::vector<size_t> bytes = workspace_.measure(plan);
        memory.working.resize(bytes.size());
        for (size_t i = 0; i < bytes.size(); ++i) memory.working[i] = std::max(memory.working[i], bytes[i]);
    };
    add(prologue());
    for (size_t pass = 0; pass < passes_.size(); ++pass) {
        for (size_t i = 0; i < transformer_.blocks().size(); ++i) add(block(pass, i));
        add(epilogue(pass));
    }
    return memory;
}

}  // namespace sdltx
