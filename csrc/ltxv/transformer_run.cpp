#include "transformer_run.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace sdltx {

// The contexts of some passes, whose keys are made once for all of them. A pass that is alone with its contexts makes
// them itself, unless they stay for later steps.
struct TransformerRun::Looked {
    const Array *video, *audio;
    std::vector<size_t> passes{};
    bool with_video = false, with_audio = false;  // not frozen in all of them
    bool shared = false;
};

// What the blocks on one device read and write of a stream of T tokens, K of whose timesteps are distinct. Everything
// but the weights is on every device that has blocks, so that only x changes places, once per device and pass.
struct TransformerRun::Place {
    std::vector<ggml_tensor*> contexts{};  // by pass: [context_dim, rows]
    // By pass and block, or of one block after the other; none where a block's plan makes them.
    std::vector<std::vector<Keys>> text{};
    Rope self_rope{}, cross_rope{};
    AttentionBias bias{};                 // of self attention; null: none
    std::vector<ggml_tensor*> x{};        // by pass: [D, T]; every block replaces it
    ggml_tensor* adaln = nullptr;         // [block rows D, K]
    ggml_tensor* prompt_adaln = nullptr;  // [prompt_rows D, 1], null where that of text does not follow the noise
    ggml_tensor* cross_adaln = nullptr;   // [cross_rows D, K]
    ggml_tensor* cross_gate = nullptr;    // [D, 1]

    Keys text_of(size_t pass, size_t block) const {
        const std::vector<Keys>& keys = text[pass];
        return keys.empty() ? Keys{} : keys[std::min(block, keys.size() - 1)];
    }
    StreamTensors tensors(size_t pass, const TokenRuns& runs, const Keys& keys) const {
        return {x[pass],
                contexts[pass],
                keys,
                adaln,
                prompt_adaln,
                cross_adaln,
                cross_gate,
                &runs,
                self_rope,
                cross_rope,
                bias.rows || bias.mask ? &bias : nullptr};
    }
};

struct TransformerRun::StreamRun {
    const Transformer::Stream& stream;
    Positions positions;
    std::vector<Place> places{};  // by device; prologue and epilogue run on the first
    // Set by each call.
    ggml_tensor* tokens = nullptr;          // [in_channels, T]
    ggml_tensor* sigma_sinusoid = nullptr;  // [256, 1], null as prompt_adaln is
    ggml_tensor* other_sinusoid = nullptr;  // [256, 1], of the other stream's sigma
    ggml_tensor* sinusoid = nullptr;        // [256, K]
    ggml_tensor* embedded = nullptr;        // [D, K], written by the prologue

    int64_t num_tokens() const { return positions.tokens; }
};

// What depends on which tokens share a timestep and on what is traced.
struct TransformerRun::Plans {
    TokenRuns video_runs, audio_runs;
    std::vector<std::string> traced;
    std::vector<std::unique_ptr<State>> states;  // by device
    std::unique_ptr<Plan> prologue;
    struct Text {
        std::unique_ptr<Plan> plan;
        bool kept = false;  // there are results that stay
    };
    std::vector<std::vector<Text>> texts;                    // by number of what is looked at, and index
    std::vector<std::vector<std::unique_ptr<Plan>>> blocks;  // by pass and index
    struct Epilogue {
        std::unique_ptr<Plan> plan;
        ggml_tensor *video = nullptr, *audio = nullptr;  // velocities
    };
    std::vector<Epilogue> epilogues;  // by pass
};

namespace {

TokenRuns marked_runs(const Positions& positions) {
    TokenRuns runs = token_runs({positions.marked.begin(), positions.marked.end()});
    runs.erase(std::remove_if(runs.begin(), runs.end(), [](const TokenRun& run) { return !run.value; }), runs.end());
    return runs;
}

std::vector<std::unique_ptr<State>> make_states(const Backend& backend) {
    std::vector<std::unique_ptr<State>> states;
    for (size_t i = 0; i < backend.num_devices(); ++i)
        states.push_back(std::make_unique<State>(backend, "transformer", i));
    return states;
}

}  // namespace

TransformerRun::TransformerRun(Transformer& transformer, Workspace& workspace, const RunStreams& streams,
                               const std::vector<Pass>& passes, Trace* trace, std::shared_ptr<Loras> loras,
                               bool keeps_text)
    : transformer_(transformer),
      workspace_(workspace),
      passes_(passes),
      trace_(trace),
      loras_(std::move(loras)),
      keeps_text_(keeps_text && transformer.text_is_static()),
      video_groups_(streams.video_groups),
      cross_(streams.video && streams.audio &&
             std::any_of(passes.begin(), passes.end(), [](const Pass& p) { return !p.perturbation.skip_cross_modal; })),
      states_(make_states(workspace.backend())) {
    const int64_t layers = transformer.config().num_layers;
    for (auto& pass : passes)
        for (auto* list : {&pass.perturbation.skip_video_self_attn, &pass.perturbation.skip_audio_self_attn})
            for (int block : *list)
                if (block < 0 || block >= layers)
                    throw Error(ErrorCode::invalid_request, "[transformer] there is no block " + std::to_string(block) +
                                                                " to skip; the model has blocks 0 to " +
                                                                std::to_string(layers - 1));
    for (size_t i = 0; i < passes.size(); ++i) {
        const Pass& pass = passes[i];
        const auto same = [&](const Looked& l) {
            return l.video == pass.video_context && l.audio == pass.audio_context;
        };
        auto l = std::find_if(looked_.begin(), looked_.end(), same);
        if (l == looked_.end()) l = looked_.insert(l, {pass.video_context, pass.audio_context});
        l->passes.push_back(i);
        l->with_video = l->with_video || (streams.video && !pass.perturbation.freeze_video);
        l->with_audio = l->with_audio || (streams.audio && !pass.perturbation.freeze_audio);
        l->shared = keeps_text_ || l->passes.size() > 1;
    }
    if (streams.video) video_ = begin_stream(transformer.video(), *streams.video);
    if (streams.audio) audio_ = begin_stream(transformer.audio(), *streams.audio);
}

TransformerRun::~TransformerRun() = default;
TransformerRun::TransformerRun(TransformerRun&&) noexcept = default;

std::unique_ptr<TransformerRun::StreamRun> TransformerRun::begin_stream(const Transformer::Stream& stream,
                                                                        const Positions& positions) {
    const StreamConfig &c = stream.config, &audio = transformer_.config().audio;
    if (positions.axes < static_cast<int64_t>(c.max_pos.size()))
        throw Error(ErrorCode::invalid_request,
                    "[transformer] positions need " + std::to_string(c.max_pos.size()) + " axes");
    auto s = std::make_unique<StreamRun>(StreamRun{stream, positions});
    const bool text_modulated = transformer_.config().prompt_adaln;
    const auto tensor = [&](State& state, const char* name, int64_t width, int64_t count) {
        return state.tensor(stream.prefix + name, GGML_TYPE_F32, {width, count});
    };
    s->tokens = tensor(*states_[0], "tokens", c.in_channels, s->num_tokens());
    if (text_modulated) s->sigma_sinusoid = tensor(*states_[0], "sigma", sinusoid_size, 1);
    if (cross_) s->other_sinusoid = tensor(*states_[0], "other_sigma", sinusoid_size, 1);
    for (size_t device = 0; device < states_.size(); ++device) {
        auto& state = states_[device];
        Place place;
        if (text_modulated) place.prompt_adaln = tensor(*state, "prompt_adaln", prompt_rows * c.dim(), 1);
        std::map<const Array*, ggml_tensor*> contexts;  // several passes look at the same
        for (auto& pass : passes_) {
            const Array* context = &stream == &transformer_.video() ? pass.video_context : pass.audio_context;
            ggml_tensor*& there = contexts[context];
            if (!there) there = tensor(*state, "context", c.context_dim, context->dim(0));
            place.contexts.push_back(there);
            place.x.push_back(tensor(*state, "x", c.dim(), s->num_tokens()));
        }
        place.text = text_tensors(stream, *state, device);
        place.self_rope = rope_tensors(*state, stream.prefix + "self_rope", c.dim(), c.heads, s->num_tokens());
        if (const int64_t n = s->num_tokens(); &stream == &transformer_.video() && !video_groups_.empty()) {
            if (has_own_attention(workspace_.backend(), c.head_dim)) {
                const auto rows = static_cast<int64_t>(bias_of(video_groups_, n).rows.size()) / n;
                place.bias = {state->tensor("bias.rows", GGML_TYPE_F32, {n, rows}),
                              state->tensor("bias.which", GGML_TYPE_I32, {n}),
                              state->tensor("bias.own", GGML_TYPE_F32, {n}), video_groups_.target};
            } else {
                place.bias.mask = state->tensor("bias.mask", GGML_TYPE_F16, {n, n});
            }
        }
        if (cross_) {
            place.cross_gate = tensor(*state, "cross_gate", c.dim(), 1);
            place.cross_rope =
                rope_tensors(*state, stream.prefix + "cross_rope", audio.dim(), audio.heads, s->num_tokens());
        }
        s->places.push_back(std::move(place));
    }
    return s;
}

std::vector<std::vector<Keys>> TransformerRun::text_tensors(const Transformer::Stream& stream, State& state,
                                                            size_t device) const {
    const bool video = &stream == &transformer_.video();
    const StreamConfig& c = stream.config;
    std::vector<std::vector<Keys>> of_passes(passes_.size());
    for (const Looked& l : looked_) {
        if (!l.shared || !(video ? l.with_video : l.with_audio)) continue;
        const int64_t rows = (video ? l.video : l.audio)->dim(0);
        const auto tensor = [&](const char* name) {
            return state.tensor(stream.prefix + name, GGML_TYPE_F32, {c.head_dim, c.heads, rows});
        };
        std::vector<Keys> keys(keeps_text_ ? transformer_.blocks().size() : 1);
        for (size_t i = 0; i < keys.size(); ++i)
            if (!keeps_text_ || transformer_.weights().device_of(i) == device)
                keys[i] = {tensor("text.k"), tensor("text.v")};
        for (size_t pass : l.passes) of_passes[pass] = keys;
    }
    return of_passes;
}

const TokenRuns& TransformerRun::runs_of(const StreamRun& s) const {
    return &s == video_.get() ? plans_->video_runs : plans_->audio_runs;
}

std::vector<TransformerRun::StreamRun*> TransformerRun::streams() const {
    std::vector<StreamRun*> all;
    for (StreamRun* s : {video_.get(), audio_.get()})
        if (s) all.push_back(s);
    return all;
}

void TransformerRun::set_runs(const TokenRuns& video, const TokenRuns& audio) {
    const std::vector<std::string> traced = trace_ ? trace_->patterns : std::vector<std::string>{};
    if (plans_ && plans_->video_runs == video && plans_->audio_runs == audio && plans_->traced == traced) return;
    plans_ = std::make_unique<Plans>();
    plans_->states = make_states(workspace_.backend());
    plans_->video_runs = video;
    plans_->audio_runs = audio;
    plans_->traced = traced;
    plans_->texts.resize(looked_.size());
    for (auto& of_looked : plans_->texts) of_looked.resize(transformer_.blocks().size());
    plans_->blocks.resize(passes_.size());
    for (auto& of_pass : plans_->blocks) of_pass.resize(transformer_.blocks().size());
    plans_->epilogues.resize(passes_.size());
    for (StreamRun* s : streams()) {
        int64_t k = 0;  // distinct timesteps
        for (const TokenRun& run : runs_of(*s)) k = std::max(k, run.value + 1);
        const int64_t dim = s->stream.config.dim();
        const auto tensor = [&](State& state, const char* name, int64_t width) {
            return state.tensor(s->stream.prefix + name, GGML_TYPE_F32, {width, k});
        };
        s->sinusoid = tensor(*plans_->states[0], "timesteps", sinusoid_size);
        s->embedded = tensor(*plans_->states[0], "embedded", dim);
        for (size_t i = 0; i < s->places.size(); ++i) {
            State& state = *plans_->states[i];
            Place& place = s->places[i];
            place.adaln = tensor(state, "adaln", block_rows(transformer_.config()) * dim);
            place.cross_adaln = cross_ ? tensor(state, "cross_adaln", cross_rows * dim) : nullptr;
        }
    }
}

std::unique_ptr<Plan> TransformerRun::make_plan(size_t device) const {
    auto plan = std::make_unique<Plan>(workspace_.backend(), "transformer", trace_, device);
    if (loras_) plan->set_deltas(&loras_->deltas());
    return plan;
}

Plan& TransformerRun::prologue() {
    if (plans_->prologue) return *plans_->prologue;
    plans_->prologue = make_plan();
    Plan& g = *plans_->prologue;
    for (StreamRun* s : streams()) {
        const Transformer::Stream& w = s->stream;
        const Place& place = s->places.front();
        ggml_tensor* x = transformer_.patchify(g, w, s->tokens);  // [D, T]
        if (s == video_.get()) x = transformer_.mark(g, x, marked_runs(s->positions));
        for (ggml_tensor* of_pass : place.x) g.store(x, of_pass);
        ggml_tensor* embedded = embed_timesteps(g, w.adaln, s->sinusoid);  // [D, K]
        g.store(embedded, s->embedded);
        g.store(modulation_rows(g, w.adaln, embedded), place.adaln);
        if (s->sigma_sinusoid)
            g.store(modulation_rows(g, w.prompt_adaln, embed_timesteps(g, w.prompt_adaln, s->sigma_sinusoid)),
                    place.prompt_adaln);
        if (!cross_) continue;
        // Scale and shift follow the stream's own timesteps, the gate the other stream's sigma.
        const AdaLayerNormSingle &rows = w.cross_scale_shift_adaln, &gate = w.cross_gate_adaln;
        g.store(modulation_rows(g, rows, embed_timesteps(g, rows, s->sinusoid)), place.cross_adaln);
        g.store(modulation_rows(g, gate, embed_timesteps(g, gate, s->other_sinusoid)), place.cross_gate);
    }
    return g;
}

Plan& TransformerRun::text(size_t looked, size_t index) {
    std::unique_ptr<Plan>& plan = plans_->texts[looked][index].plan;
    if (plan) return *plan;
    const Looked& l = looked_[looked];
    const size_t pass = l.passes.front(), device = transformer_.weights().device_of(index);
    plan = make_plan(device);
    const Block& b = transformer_.blocks()[index];
    const auto make = [&](const StreamRun& s, const StreamBlock& half) {
        const Place& place = s.places[device];
        const Keys keys = text_keys(*plan, half, place.tensors(pass, runs_of(s), {})), to = place.text_of(pass, index);
        plan->store(keys.k, to.k);
        plan->store(keys.v, to.v);
    };
    if (l.with_video) make(*video_, b.video);
    if (l.with_audio) make(*audio_, b.audio);
    return *plan;
}

void TransformerRun::prepare_text(size_t index, const std::vector<int>& which) {
    for (size_t n = 0; n < looked_.size(); ++n) {
        const Looked& l = looked_[n];
        Plans::Text& text = plans_->texts[n][index];
        const auto wanted = [&](int pass) {
            return std::find(l.passes.begin(), l.passes.end(), static_cast<size_t>(pass)) != l.passes.end();
        };
        if (!l.shared || text.kept || std::none_of(which.begin(), which.end(), wanted)) continue;
        workspace_.run(this->text(n, index));
        text.kept = keeps_text_;
    }
}

Plan& TransformerRun::block(size_t pass, size_t index) {
    std::unique_ptr<Plan>& plan = plans_->blocks[pass][index];
    if (plan) return *plan;
    const Perturbation& p = passes_[pass].perturbation;
    const auto listed = [&](const std::vector<int>& blocks) {
        return std::find(blocks.begin(), blocks.end(), static_cast<int>(index)) != blocks.end();
    };
    const size_t device = transformer_.weights().device_of(index);
    plan = make_plan(device);
    const auto tensors = [&](const StreamRun& s) {
        const Place& place = s.places[device];
        return place.tensors(pass, runs_of(s), place.text_of(pass, index));
    };
    StreamTensors video, audio;
    if (video_) video = tensors(*video_);
    if (audio_) audio = tensors(*audio_);
    run_block(*plan, transformer_.blocks()[index], video_ ? &video : nullptr, audio_ ? &audio : nullptr,
              {listed(p.skip_video_self_attn), listed(p.skip_audio_self_attn), p.skip_cross_modal, p.freeze_video,
               p.freeze_audio},
              static_cast<float>(transformer_.config().norm_eps));
    if (video_ && !p.freeze_video) plan->store(video.x, video_->places[device].x[pass]);
    if (audio_ && !p.freeze_audio) plan->store(audio.x, audio_->places[device].x[pass]);
    return *plan;
}

Plan& TransformerRun::epilogue(size_t pass) {
    Plans::Epilogue& e = plans_->epilogues[pass];
    if (e.plan) return *e.plan;
    e.plan = make_plan();
    const auto velocity = [&](const StreamRun& s) {
        ggml_tensor* v = transformer_.head(*e.plan, s.stream, s.places.front().x[pass], s.embedded, runs_of(s));
        return e.plan->output(v, s.stream.prefix + "proj_out");
    };
    if (video_) e.video = velocity(*video_);
    if (audio_) e.audio = velocity(*audio_);
    return *e.plan;
}

void TransformerRun::set_constants(StreamRun& s) {
    const TransformerConfig& c = transformer_.config();
    const auto table = [&](int64_t dim, const std::vector<double>& max_pos) {
        return rope_table(s.positions, dim, max_pos, c.rope_theta);
    };
    const RopeTable self = table(s.stream.config.dim(), s.stream.config.max_pos);
    // Across streams only time counts, on the longer of the two scales.
    const RopeTable cross =
        cross_ ? table(c.audio.dim(), {std::max(c.video.max_pos[0], c.audio.max_pos[0])}) : RopeTable{};
    for (size_t d = 0; d < states_.size(); ++d) {
        State& state = *states_[d];
        const Place& place = s.places[d];
        for (size_t i = 0; i < passes_.size(); ++i)
            state.set(place.contexts[i],
                      (&s == video_.get() ? passes_[i].video_context : passes_[i].audio_context)->data);
        state.set(place.self_rope.cos, self.cos);
        state.set(place.self_rope.sin, self.sin);
        if (!cross_) continue;
        state.set(place.cross_rope.cos, cross.cos);
        state.set(place.cross_rope.sin, cross.sin);
    }
}

void TransformerRun::set_bias(const StreamRun& s) {
    if (&s != video_.get() || video_groups_.empty()) return;
    const int64_t n = s.num_tokens();
    const TokenBias bias = bias_of(video_groups_, n);
    std::vector<ggml_fp16_t> mask;
    for (size_t d = 0; d < states_.size(); ++d) {
        const AttentionBias& to = s.places[d].bias;
        if (to.rows) {
            states_[d]->set(to.rows, bias.rows);
            states_[d]->set(to.which, bias.which);
            states_[d]->set(to.own, bias.own);
            continue;
        }
        mask.resize(static_cast<size_t>(n * n));
        for (int64_t i = 0; i < n; ++i) ggml_fp32_to_fp16_row(mask_row(bias, i).data(), mask.data() + i * n, n);
        states_[d]->set(to.mask, mask.data(), mask.size() * sizeof(ggml_fp16_t));
    }
}

void TransformerRun::share_prologue() {
    for (StreamRun* s : streams())
        for (size_t d = 1; d < s->places.size(); ++d) {
            Place &first = s->places.front(), &place = s->places[d];
            for (auto [from, to] : {std::pair{first.adaln, place.adaln},
                                    {first.prompt_adaln, place.prompt_adaln},
                                    {first.cross_adaln, place.cross_adaln},
                                    {first.cross_gate, place.cross_gate}})
                if (from) ggml_backend_tensor_copy(from, to);
        }
}

void TransformerRun::hand_over(size_t pass, size_t from, size_t to) {
    if (from == to) return;
    for (StreamRun* s : streams()) ggml_backend_tensor_copy(s->places[from].x[pass], s->places[to].x[pass]);
}

void TransformerRun::set_input(StreamRun& s, const StreamInput& in, const StreamInput* other) {
    const TransformerConfig& c = transformer_.config();
    const std::vector<float> distinct = distinct_values(*in.timesteps);
    states_[0]->set(s.tokens, *in.tokens);
    if (s.sigma_sinusoid) states_[0]->set(s.sigma_sinusoid, sinusoid({in.sigma}, c.timestep_scale));
    if (s.other_sinusoid) states_[0]->set(s.other_sinusoid, sinusoid({other->sigma}, c.av_gate_timestep_scale));
    plans_->states[0]->set(s.sinusoid, sinusoid(distinct, c.timestep_scale));
    for (auto& state : plans_->states) state->allocate();
}

std::vector<Velocity> TransformerRun::velocities(const StreamInput* video, const StreamInput* audio,
                                                 const std::vector<int>& which, const OnBlock& on_block) {
    if (!constants_set_)
        for (StreamRun* s : streams()) {
            set_constants(*s);
            set_bias(*s);
        }
    constants_set_ = true;
    const auto runs = [](const StreamInput* in) {
        std::vector<int32_t> index;
        if (in) distinct_values(*in->timesteps, &index);
        return token_runs(index);
    };
    set_runs(runs(video), runs(audio));
    if (video_) set_input(*video_, *video, audio);
    if (audio_) set_input(*audio_, *audio, video);

    Weights& weights = transformer_.weights();
    const size_t blocks = transformer_.blocks().size();
    if (!stream_) {
        std::vector<Weights*> networks{&weights};
        if (loras_)
            for (Weights* of_file : loras_->weights()) networks.push_back(of_file);
        stream_ = std::make_unique<Stream>(std::move(networks));
    }
    Stream::Sweep sweep(*stream_);
    workspace_.run(prologue());
    share_prologue();
    size_t device = 0;
    for (size_t i = 0; i < blocks; ++i) {
        sweep.enter(i);
        prepare_text(i, which);
        for (int number : which) {
            const auto pass = static_cast<size_t>(number);
            hand_over(pass, device, weights.device_of(i));
            workspace_.run(block(pass, i), [&] {
                if (number == which.front()) sweep.meanwhile(i);
            });
        }
        device = weights.device_of(i);
        sweep.leave(i);
        if (on_block) on_block(static_cast<int64_t>(i + 1));
    }
    std::vector<Velocity> out(passes_.size());
    for (int number : which) {
        const auto pass = static_cast<size_t>(number);
        Plan& plan = epilogue(pass);
        hand_over(pass, device, 0);
        workspace_.run(plan);
        if (video_) out[pass].video = plan.get(plans_->epilogues[pass].video);
        if (audio_) out[pass].audio = plan.get(plans_->epilogues[pass].audio);
    }
    return out;
}

MemoryUse TransformerRun::measure(const std::vector<int64_t>& video, const std::vector<int64_t>& audio) {
    const auto made = [](const StreamRun* s, const std::vector<int64_t>& counts) {
        TokenRuns runs;
        int64_t first = 0;
        if (!s) return runs;
        for (int64_t count : counts.empty() ? std::vector<int64_t>{s->num_tokens()} : counts) {
            runs.push_back({first, count, static_cast<int64_t>(runs.size())});
            first += count;
        }
        return runs;
    };
    set_runs(made(video_.get(), video), made(audio_.get(), audio));
    MemoryUse memory;
    size_t descriptions = 0;  // of all, as they stay
    const auto add = [&](Plan& plan) {
        MemoryUse use = workspace_.measure_all(plan);
        descriptions += std::exchange(use.host, 0);
        memory.also(use);
    };
    add(prologue());
    for (size_t n = 0; n < looked_.size(); ++n)
        for (size_t i = 0; looked_[n].shared && i < transformer_.blocks().size(); ++i) add(text(n, i));
    for (size_t pass = 0; pass < passes_.size(); ++pass) {
        for (size_t i = 0; i < transformer_.blocks().size(); ++i) add(block(pass, i));
        add(epilogue(pass));
    }
    memory.host += descriptions;
    for (size_t d = 0; d < states_.size(); ++d) memory.inputs[d] += states_[d]->size() + plans_->states[d]->size();
    // A mask on its way to devices.
    if (video_ && video_->places.front().bias.mask) memory.host += ggml_nbytes(video_->places.front().bias.mask);
    // Velocities of all passes, and what becomes of them.
    for (const StreamRun* s : streams())
        memory.host += (2 * passes_.size() + 6) * static_cast<size_t>(s->num_tokens() * s->stream.config.in_channels) *
                       sizeof(float);
    return memory;
}

}  // namespace sdltx
