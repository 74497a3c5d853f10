#include "tower.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "ggml/pieces.h"
#include "ggml/stream.h"

namespace sdltx {

namespace {

constexpr const char* where = "text encoder";

// cos and sin (N, pairs) of position * frequency, fastest axis the pair; of positions from `first` on.
void rope_table(int64_t first, int64_t n, const std::vector<double>& frequencies, std::vector<float>& cos,
                std::vector<float>& sin) {
    const size_t size = static_cast<size_t>(n) * frequencies.size();
    cos.reserve(size);
    sin.reserve(size);
    for (int64_t p = first; p < first + n; ++p)
        for (double f : frequencies) {
            const double angle = static_cast<double>(p) * f;
            cos.push_back(static_cast<float>(std::cos(angle)));
            sin.push_back(static_cast<float>(std::sin(angle)));
        }
}

// Key k is seen by query q when 0 <= q - k < window; of n queries from `first` on, and of keys from the first one on.
std::vector<ggml_fp16_t> causal_mask(int64_t first, int64_t n, int64_t keys, int64_t window) {
    const ggml_fp16_t zero = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
    std::vector<ggml_fp16_t> mask(static_cast<size_t>(n * keys), hidden);
    for (int64_t q = first; q < first + n; ++q)
        for (int64_t k = std::max<int64_t>(0, q - window + 1); k <= q; ++k)
            mask[static_cast<size_t>((q - first) * keys + k)] = zero;
    return mask;
}

// Keys are looked at in such numbers, so that plans of one token after the other are alike.
constexpr int64_t keys_at_a_time = 64;
int64_t rounded_keys(int64_t keys) { return (keys + keys_at_a_time - 1) / keys_at_a_time * keys_at_a_time; }

}  // namespace

std::vector<double> rotary_frequencies(int64_t head_dim, double base, double factor) {
    std::vector<double> f;
    for (int64_t j = 0; j < head_dim / 2; ++j)
        f.push_back(std::pow(base, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim)) / factor);
    return f;
}

TextTower::TextTower(const ModelFiles& files, Workspace& workspace, TowerShape shape)
    : shape_(std::move(shape)),
      workspace_(workspace),
      weights_(files, workspace.backend(), where, "language_model.model."),
      embed_tokens_(weights_.table("embed_tokens.weight", {shape_.vocab_size, shape_.hidden_size})) {}

TextTower::~TextTower() = default;

TowerLayer TextTower::declare_layer(int64_t i, const TowerLayerShape& s) {
    const std::string at = "layers." + std::to_string(i) + ".", attention = at + "self_attn.", mlp = at + "mlp.";
    const int64_t hidden = shape_.hidden_size, q_dim = s.heads * s.head_dim, kv_dim = s.key_value_heads * s.head_dim;
    const auto norm = [&](const std::string& name, int64_t width) {
        return weights_.vector(name + ".weight", {width}, s.plus);
    };
    const auto matrix = [&](const std::string& name, int64_t in, int64_t out) {
        return declare_linear(weights_, name, in, out, false);
    };
    weights_.begin_block();
    TowerLayer l{};
    l.input_layernorm = norm(at + "input_layernorm", hidden);
    l.post_attention_layernorm = norm(at + "post_attention_layernorm", hidden);
    l.pre_feedforward_layernorm = norm(at + "pre_feedforward_layernorm", hidden);
    l.post_feedforward_layernorm = norm(at + "post_feedforward_layernorm", hidden);
    l.q_norm = norm(attention + "q_norm", s.head_dim);
    l.k_norm = norm(attention + "k_norm", s.head_dim);
    l.q_proj = matrix(attention + "q_proj", hidden, q_dim);
    l.k_proj = matrix(attention + "k_proj", hidden, kv_dim);
    if (s.has_v_proj) l.v_proj = matrix(attention + "v_proj", hidden, kv_dim);
    l.o_proj = matrix(attention + "o_proj", q_dim, hidden);
    l.mlp = {matrix(mlp + "gate_proj", hidden, s.intermediate_size),
             matrix(mlp + "up_proj", hidden, s.intermediate_size),
             matrix(mlp + "down_proj", s.intermediate_size, hidden)};
    l.mlp.down_proj.wide_range = true;
    return l;
}

void TextTower::declare_norm(float plus) { norm_ = weights_.vector("norm.weight", {shape_.hidden_size}, plus); }

void TextTower::declare_head() {
    weights_.end_blocks();
    weights_.begin_use(for_writing);
    head_ = declare_linear(weights_, "embed_tokens", shape_.hidden_size, shape_.vocab_size, false);
    weights_.begin_use(0);
    use_head(false);
}

void TextTower::remember(Plan& g, const Tensors& t, size_t index, ggml_tensor*& keys, ggml_tensor*& values) {
    if (!t.past) return;
    ggml_context* ctx = g.ctx();
    const auto with_past = [&](ggml_tensor* now, ggml_tensor* all) {
        const auto tokens = [&](ggml_tensor* of, int64_t first, int64_t count) {
            return ggml_view_3d(ctx, of, of->ne[0], of->ne[1], count, of->nb[1], of->nb[2],
                                static_cast<size_t>(first) * of->nb[2]);
        };
        ggml_tensor* written = g.after(all, ggml_cpy(ctx, now, tokens(all, t.past->tokens, now->ne[2])));
        return tokens(written, 0, t.mask[0]->ne[0]);
    };
    keys = with_past(keys, t.past->keys[index]);
    values = with_past(values, t.past->values[index]);
}

namespace {

ggml_tensor* gated_feed_forward(Plan& g, const GatedFeedForward& ff, ggml_tensor* x) {
    const int64_t n = x->ne[1];
    const int64_t work = work_of(g, ff.gate_proj, n) + work_of(g, ff.up_proj, n) + work_of(g, ff.down_proj, n);
    return by_rows(g, x, x->ne[0], work, [&](ggml_tensor* part) {
        return linear(
            g, ff.down_proj,
            ggml_mul(g.ctx(), linear(g, ff.gate_proj, part, Activation::gelu_tanh), linear(g, ff.up_proj, part)));
    });
}

}  // namespace

ggml_tensor* TextTower::behind_attention(Plan& g, const TowerLayer& l, ggml_tensor* h, ggml_tensor* attended) const {
    ggml_tensor* a = linear(g, l.o_proj, attended);  // [hidden, n]
    h = ggml_add(g.ctx(), h, rms_norm(g, a, l.post_attention_layernorm, eps()));
    ggml_tensor* y = gated_feed_forward(g, l.mlp, rms_norm(g, h, l.pre_feedforward_layernorm, eps()));
    return ggml_add(g.ctx(), h, rms_norm(g, y, l.post_feedforward_layernorm, eps()));
}

TextTower::Tensors::Tensors(const Backend& backend, const TowerShape& shape, int64_t n, int64_t keys, size_t on)
    : device(on), state(backend, where, on) {
    h = state.tensor("h", GGML_TYPE_F32, {shape.hidden_size, n});
    for (size_t kind = 0; kind < 2; ++kind) {
        const int64_t pairs = shape.kinds[kind].head_dim / 2;
        cos[kind] = state.tensor("cos", GGML_TYPE_F32, {pairs, 1, n});
        sin[kind] = state.tensor("sin", GGML_TYPE_F32, {pairs, 1, n});
        mask[kind] = state.tensor("mask", GGML_TYPE_F16, {keys, n});
    }
}

std::vector<float> TextTower::embed(const std::vector<int32_t>& ids, Trace* trace) const {
    std::vector<float> values = embed_tokens_.rows(ids);
    const auto scale = static_cast<float>(std::sqrt(static_cast<double>(shape_.hidden_size)));
    for (float& v : values) v *= scale;
    if (const char* name = "embed_tokens"; trace && trace->wants(name)) {
        ++trace->runs[name];
        trace->tensors[name] = {{static_cast<int64_t>(ids.size()), shape_.hidden_size}, values};
    }
    return values;
}

// After the last layer the final norm takes the place of the residual.
std::unique_ptr<Plan> TextTower::plan(const Tensors& t, size_t index, Trace* trace) const {
    auto made = std::make_unique<Plan>(workspace_.backend(), where, trace, t.device);
    Plan& g = *made;
    ggml_tensor* h = g.stage(layer(g, t, index), "layers." + std::to_string(index));
    if (static_cast<int64_t>(index) + 1 == shape_.num_hidden_layers) h = g.stage(rms_norm(g, h, norm_, eps()), "norm");
    g.store(h, t.h);
    return made;
}

std::vector<int32_t> TextTower::checked(const std::vector<int32_t>& given) const {
    std::vector<int32_t> ids;
    for (int32_t id : given) ids.push_back(embedded(id));
    for (int32_t id : ids)
        if (id < 0 || id >= shape_.vocab_size)
            throw Error(ErrorCode::model_mismatch,
                        "[text encoder] token " + std::to_string(id) + " is outside the vocabulary of " +
                            std::to_string(shape_.vocab_size) + "; tokenizer and text encoder are of different models");
    return ids;
}

std::vector<std::unique_ptr<TextTower::Tensors>> TextTower::places(int64_t first, int64_t n, int64_t keys) const {
    const Backend& backend = workspace_.backend();
    std::vector<float> cos[2], sin[2];
    std::vector<ggml_fp16_t> visible[2];
    for (size_t kind = 0; kind < 2; ++kind) {
        const AttentionKind& k = shape_.kinds[kind];
        rope_table(first, n, k.frequencies, cos[kind], sin[kind]);
        visible[kind] = causal_mask(first, n, keys, k.window ? k.window : first + n);
    }
    std::vector<std::unique_ptr<Tensors>> made;
    for (size_t d = 0; d < backend.num_devices(); ++d) {
        Tensors& t = *made.emplace_back(std::make_unique<Tensors>(backend, shape_, n, keys, d));
        for (size_t kind = 0; kind < 2; ++kind) {
            t.state.set(t.cos[kind], cos[kind]);
            t.state.set(t.sin[kind], sin[kind]);
            t.state.set(t.mask[kind], visible[kind].data(), visible[kind].size() * sizeof(ggml_fp16_t));
        }
    }
    return made;
}

void TextTower::run_layers(const std::vector<std::unique_ptr<Tensors>>& places, const std::vector<float>& embedded,
                           Stream& stream, Trace* trace,
                           const std::function<void(const Tensors& t, size_t index)>& behind) {
    Tensors* t = places.front().get();
    t->state.set(t->h, embedded);
    Stream::Sweep sweep(stream);
    for (size_t i = 0; i < static_cast<size_t>(shape_.num_hidden_layers); ++i) {
        sweep.enter(i);
        if (Tensors* next = places[weights_.device_of(i)].get(); next != t) {
            ggml_backend_tensor_copy(t->h, next->h);
            t = next;
        }
        workspace_.run(*plan(*t, i, trace), [&] { sweep.meanwhile(i); });
        sweep.leave(i);
        behind(*t, i);
    }
}

Array TextTower::encode(const std::vector<int32_t>& given, Trace* trace,
                        const std::function<void(int64_t done)>& on_layer) {
    const std::vector<int32_t> ids = checked(given);
    const int64_t n = static_cast<int64_t>(ids.size());
    const auto where_computed = places(0, n, n);

    Array states{{shape_.num_hidden_layers + 1, n, shape_.hidden_size}, {}};
    const size_t state_size = static_cast<size_t>(n * shape_.hidden_size);
    states.data.resize(static_cast<size_t>(states.dim(0)) * state_size);
    const std::vector<float> embedded_ids = embed(ids, trace);
    std::copy(embedded_ids.begin(), embedded_ids.end(), states.data.begin());
    Stream stream({&weights_});
    run_layers(where_computed, embedded_ids, stream, trace, [&](const Tensors& t, size_t i) {
        ggml_backend_tensor_get(t.h, &states.data[(i + 1) * state_size], 0, state_size * sizeof(float));
        if (on_layer) on_layer(static_cast<int64_t>(i + 1));
    });
    return states;
}

TextTower::Reader::Reader(TextTower& tower, int64_t most, Trace* trace)
    : tower_(tower),
      trace_(trace),
      most_(rounded_keys(most)),
      stream_(std::make_unique<Stream>(std::vector{&tower.weights_})) {
    const Backend& backend = tower.workspace_.backend();
    for (size_t d = 0; d < backend.num_devices(); ++d) states_.push_back(std::make_unique<State>(backend, where, d));
    past_ = tower.past_in(states_, most_);
    for (auto& state : states_) state->allocate();
}

TextTower::Reader::~Reader() = default;

TextTower::Past TextTower::past_in(const std::vector<std::unique_ptr<State>>& states, int64_t most) const {
    Past past;
    for (size_t i = 0; i < static_cast<size_t>(shape_.num_hidden_layers); ++i) {
        const AttentionKind& kind = shape_.kinds[kind_of(i)];
        for (auto* of : {&past.keys, &past.values})
            of->push_back(states[weights_.device_of(i)]->tensor("past", GGML_TYPE_F32,
                                                                {kind.head_dim, kind.key_value_heads, most}));
    }
    return past;
}

std::vector<float> TextTower::Reader::read(const std::vector<int32_t>& given,
                                           const std::function<void(int64_t done)>& on_layer) {
    const std::vector<int32_t> ids = tower_.checked(given);
    const int64_t n = static_cast<int64_t>(ids.size());
    if (past_.tokens + n > most_)
        throw Error(ErrorCode::invalid_request, "[text encoder] more is read than there is room for");
    const auto where_computed = tower_.places(past_.tokens, n, rounded_keys(past_.tokens + n));
    for (auto& t : where_computed) t->past = &past_;
    std::vector<float> last(static_cast<size_t>(tower_.shape_.hidden_size));
    tower_.run_layers(where_computed, tower_.embed(ids, trace_), *stream_, trace_, [&](const Tensors& t, size_t i) {
        if (static_cast<int64_t>(i) + 1 == tower_.shape_.num_hidden_layers)
            ggml_backend_tensor_get(t.h, last.data(), static_cast<size_t>(n - 1) * t.h->nb[1],
                                    last.size() * sizeof(float));
        if (on_layer) on_layer(static_cast<int64_t>(i + 1));
    });
    past_.tokens += n;
    return tower_.scores(last, trace_);
}

std::unique_ptr<Plan> TextTower::head_plan(Trace* trace, ggml_tensor*& h, ggml_tensor*& scores) const {
    auto made = std::make_unique<Plan>(workspace_.backend(), where, trace);
    h = made->input("h", GGML_TYPE_F32, {shape_.hidden_size, 1});
    scores = made->output(made->stage(linear(*made, head_, h), "lm_head"), "scores");
    return made;
}

std::vector<float> TextTower::scores(const std::vector<float>& state, Trace* trace) {
    ggml_tensor *h = nullptr, *out = nullptr;
    const auto plan = head_plan(trace, h, out);
    plan->set(h, state);
    workspace_.run(*plan);
    return plan->get(out);
}

MemoryUse TextTower::measure_reading(int64_t first, int64_t most) {
    const Backend& backend = workspace_.backend();
    const int64_t keys = rounded_keys(first);
    std::vector<std::unique_ptr<State>> states;
    std::vector<std::unique_ptr<Tensors>> tensors;
    for (size_t d = 0; d < backend.num_devices(); ++d) states.push_back(std::make_unique<State>(backend, where, d));
    const Past past = past_in(states, rounded_keys(most));
    for (size_t d = 0; d < backend.num_devices(); ++d)
        tensors.emplace_back(std::make_unique<Tensors>(backend, shape_, first, keys, d))->past = &past;
    MemoryUse all;
    for (size_t i = 0; i < static_cast<size_t>(shape_.num_hidden_layers); ++i)
        all.also(workspace_.measure_all(*plan(*tensors[weights_.device_of(i)], i, nullptr)));
    ggml_tensor *h = nullptr, *out = nullptr;
    all.also(workspace_.measure_all(*head_plan(nullptr, h, out)));
    for (size_t d = 0; d < states.size(); ++d) all.inputs[d] += states[d]->size() + tensors[d]->state.size();
    all.host += static_cast<size_t>(first * (keys + shape_.hidden_size) + shape_.vocab_size) * sizeof(float);
    // The head comes for it alone; on the host it is used where it lies.
    if (!backend.uses_host_memory()) all.inputs[0] += ggml_nbytes(head_.w);
    return all;
}

MemoryUse TextTower::measure(int64_t tokens) {
    const Backend& backend = workspace_.backend();
    std::vector<std::unique_ptr<Tensors>> places;
    for (size_t d = 0; d < backend.num_devices(); ++d)
        places.push_back(std::make_unique<Tensors>(backend, shape_, tokens, tokens, d));
    MemoryUse most;
    for (size_t i = 0; i < static_cast<size_t>(shape_.num_hidden_layers); ++i)
        most.also(workspace_.measure_all(*plan(*places[weights_.device_of(i)], i, nullptr)));
    for (size_t d = 0; d < places.size(); ++d) most.inputs[d] += places[d]->state.size();
    // Tables and masks as they are made, the embeddings, and the states.
    for (const AttentionKind& kind : shape_.kinds)
        most.host += static_cast<size_t>(tokens) *
                     (2 * kind.frequencies.size() * sizeof(float) + static_cast<size_t>(tokens) * sizeof(ggml_fp16_t));
    most.host += static_cast<size_t>((shape_.num_hidden_layers + 2) * tokens * shape_.hidden_size) * sizeof(float);
    return most;
}

}  // namespace sdltx
