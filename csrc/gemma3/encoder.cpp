#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <optional>

#include "base/json.h"
#include "base/log.h"
#include "ggml/attention.h"
#include "ggml/pieces.h"
#include "ggml/stream.h"

namespace sdltx {

namespace {

constexpr const char* where = "text encoder";
constexpr int64_t hidden_of_12b = 3840;
constexpr double rope_factor_of_12b = 8;

// Every nth layer attends globally, or a list says which do.
std::vector<bool> global_layers(const Json& j, int64_t layers) {
    std::vector<bool> global;
    if (j.contains("layer_types") && !j.at("layer_types").is_null()) {
        for (auto& type : require<std::vector<std::string>>(j, "layer_types", where)) {
            if (type != "full_attention" && type != "sliding_attention")
                throw Error(ErrorCode::model_mismatch,
                            std::string("[") + where + "] layer type " + spell(Json(type)) + " is not implemented");
            global.push_back(type == "full_attention");
        }
        return global;
    }
    const char* key = j.contains("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    const int64_t n = value_or<int64_t>(j, key, 6, where);
    for (int64_t i = 0; i < layers; ++i) global.push_back(n >= 1 && (i + 1) % n == 0);
    return global;
}

// The factor of one kind of rotary scaling; 1 for none.
double rope_factor(const Json& j) {
    const char* key = j.contains("rope_type") ? "rope_type" : "type";
    const std::string type = value_or<std::string>(j, key, "linear", where);
    if (type == "default") return 1;
    if (type != "linear")
        throw Error(ErrorCode::model_mismatch,
                    std::string("[") + where + "] rotary scaling " + spell(Json(type)) + " is not implemented");
    return require<double>(j, "factor", where);
}

// transformers 5 has one set of rotary parameters per kind of layer, 4 had a base each and one scaling for the global
// layers.
void read_rope(const Json& j, Gemma3Config& c) {
    c.rope_factor = 1;
    bool scaling_told = false;
    if (j.contains("rope_parameters") && j.at("rope_parameters").is_object()) {
        const Json& p = j.at("rope_parameters");
        const Json full = require<Json>(p, "full_attention", where),
                   local = require<Json>(p, "sliding_attention", where);
        c.rope_theta = require<double>(full, "rope_theta", where);
        c.rope_local_base_freq = require<double>(local, "rope_theta", where);
        c.rope_factor = rope_factor(full);
        scaling_told = true;
        if (rope_factor(local) != 1)
            throw Error(ErrorCode::model_mismatch,
                        std::string("[") + where + "] rotary scaling of the sliding layers is not implemented");
    } else {
        c.rope_theta = value_or<double>(j, "rope_theta", 1e6, where);
        c.rope_local_base_freq = value_or<double>(j, "rope_local_base_freq", 1e4, where);
        if (j.contains("rope_scaling") && j.at("rope_scaling").is_object()) {
            c.rope_factor = rope_factor(j.at("rope_scaling"));
            scaling_told = true;
        }
    }
    // Without it the 12B model computes something, and it is wrong.
    if (!scaling_told && c.hidden_size == hidden_of_12b)
        throw Error(ErrorCode::model_mismatch,
                    std::string("[") + where +
                        "] the configuration lacks 'rope_scaling' (or 'rope_parameters'), which Gemma 3 12B needs; use "
                        "the config.json of its release");
}

// What a text encoder is that is not Gemma 3, by the names that configurations and GGUFs have for it.
std::string name_of_model(const std::string& type) {
    constexpr std::pair<const char*, const char*> known[] = {
        {"gemma4", "Gemma 4, which belongs to LTX-2.5"},
        {"gemma3n", "Gemma 3n (E2B or E4B)"},
        {"gemma2", "Gemma 2"},
        {"t5", "T5, which belongs to older LTX-Video"},
    };
    for (auto& [start, name] : known)
        if (type.rfind(start, 0) == 0) return name;
    return "'" + type + "'";
}

[[noreturn]] void refuse(const std::string& path, const std::string& type) {
    throw Error(ErrorCode::model_mismatch, "[" + path + "] the text encoder is " + name_of_model(type) +
                                               "; LTX-2.3 and 2.0 take Gemma 3 12B, give its folder or GGUF");
}

// The most of each that a configuration may ask for, whatever it is written in: weights are declared before anything is
// looked for.
struct Limits {
    int64_t width = 1 << 16, layers = 1 << 10, heads = 1 << 10, hidden = 1 << 20, window = 1 << 20;
};
constexpr Limits limits;

// The keys that Google's config.json leaves to the defaults of transformers' Gemma3TextConfig have those defaults here.
Gemma3Config from_config_json(const Json& top, const std::string& path) {
    const Json& j = top.contains("text_config") ? top.at("text_config") : top;
    const auto expect = [&](const Json& of, const char* key, std::initializer_list<const char*> values) {
        const std::string value = value_or<std::string>(of, key, *values.begin(), where);
        if (std::find(values.begin(), values.end(), value) != values.end()) return;
        if (std::string(key) == "model_type") refuse(path, value);
        throw Error(ErrorCode::model_mismatch, std::string("[") + where + "] '" + key + "' is '" + value +
                                                   "'; the text encoder is Gemma 3, give its folder");
    };
    expect(top, "model_type", {"gemma3", "gemma3_text"});
    expect(j, "model_type", {"gemma3_text", "gemma3"});
    expect(j, "hidden_activation", {"gelu_pytorch_tanh"});
    Gemma3Config c{};
    c.hidden_size = require_count(j, "hidden_size", limits.width, where);
    c.num_hidden_layers = require_count(j, "num_hidden_layers", limits.layers, where);
    c.num_attention_heads = require_count(j, "num_attention_heads", limits.heads, where);
    c.num_key_value_heads = require_count(j, "num_key_value_heads", limits.heads, where);
    c.intermediate_size = require_count(j, "intermediate_size", limits.hidden, where);
    c.sliding_window = require_count(j, "sliding_window", limits.window, where);
    c.head_dim = value_or<int64_t>(j, "head_dim", 256, where);
    c.vocab_size = value_or<int64_t>(j, "vocab_size", 262208, where);
    c.global = global_layers(j, c.num_hidden_layers);
    c.query_pre_attn_scalar = value_or<double>(j, "query_pre_attn_scalar", 256, where);
    c.rms_norm_eps = value_or<double>(j, "rms_norm_eps", 1e-6, where);
    read_rope(j, c);
    if (j.contains("attn_logit_softcapping") && !j.at("attn_logit_softcapping").is_null())
        throw Error(ErrorCode::model_mismatch,
                    "[text encoder] attn_logit_softcapping belongs to Gemma 2; a Gemma 3 model is needed");
    return c;
}

Gemma3Config from_gguf(const ModelFile& file, const TensorInfo& embedding) {
    auto number = [&](const char* key, double fallback) {
        const GgufValue* v = file.value(std::string("gemma3.") + key);
        if (!v) {
            if (std::isnan(fallback))
                throw Error(ErrorCode::model_mismatch, "[" + file.path() + "] the metadata lacks 'gemma3." + key + "'");
            return fallback;
        }
        return v->kind == GgufValue::Kind::real ? v->real : static_cast<double>(v->integer);
    };
    const double needed = std::nan("");
    auto whole = [&](const char* key, int64_t most) {
        const double n = number(key, needed);
        if (!(n >= 1 && n <= static_cast<double>(most)))
            throw Error(ErrorCode::model_mismatch,
                        "[" + file.path() + "] 'gemma3." + key + "' is not between 1 and " + std::to_string(most));
        return static_cast<int64_t>(n);
    };
    Gemma3Config c{};
    c.hidden_size = whole("embedding_length", limits.width);
    c.num_hidden_layers = whole("block_count", limits.layers);
    c.num_attention_heads = whole("attention.head_count", limits.heads);
    c.num_key_value_heads = whole("attention.head_count_kv", limits.heads);
    c.head_dim = whole("attention.key_length", 1024);
    c.intermediate_size = whole("feed_forward_length", limits.hidden);
    c.sliding_window = whole("attention.sliding_window", limits.window);
    c.vocab_size = embedding.shape.empty() ? 0 : embedding.shape.front();
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) c.global.push_back((i + 1) % 6 == 0);
    // llama.cpp's converter keeps no query_pre_attn_scalar: in Gemma 3 it is head_dim for all sizes but 27B.
    c.query_pre_attn_scalar = c.num_hidden_layers == 62
                                  ? static_cast<double>(c.hidden_size) / static_cast<double>(c.num_attention_heads)
                                  : static_cast<double>(c.head_dim);
    c.rms_norm_eps = number("attention.layer_norm_rms_epsilon", needed);
    c.rope_theta = number("rope.freq_base", 1e6);
    c.rope_local_base_freq = number("rope.freq_base_swa", 1e4);
    c.rope_factor = number("rope.scaling.factor", c.hidden_size == hidden_of_12b ? rope_factor_of_12b : 1);
    return c;
}

// Single files of other programs come without config.json. Shapes tell the sizes; the rest is known of the 12B model,
// which is the one that LTX was trained with.
std::optional<Gemma3Config> of_12b_from_shapes(const ModelFiles& files) {
    const auto rows = [&](const std::string& name) -> int64_t {
        const TensorInfo* t = files.find("language_model.model." + name);
        return t && !t->shape.empty() ? t->shape.front() : 0;
    };
    const TensorInfo* embedding = files.find("language_model.model.embed_tokens.weight");
    Gemma3Config c{};
    c.hidden_size = embedding->shape.size() == 2 ? embedding->shape.back() : 0;
    c.vocab_size = rows("embed_tokens.weight");
    c.head_dim = rows("layers.0.self_attn.q_norm.weight");
    while (rows("layers." + std::to_string(c.num_hidden_layers) + ".self_attn.q_norm.weight")) ++c.num_hidden_layers;
    if (c.hidden_size != hidden_of_12b || c.head_dim == 0) return std::nullopt;
    c.num_attention_heads = rows("layers.0.self_attn.q_proj.weight") / c.head_dim;
    c.num_key_value_heads = std::max<int64_t>(1, rows("layers.0.self_attn.k_proj.weight") / c.head_dim);
    c.intermediate_size = rows("layers.0.mlp.gate_proj.weight");
    c.sliding_window = 1024;
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) c.global.push_back((i + 1) % 6 == 0);
    c.query_pre_attn_scalar = 256;
    c.rms_norm_eps = 1e-6;
    c.rope_theta = 1e6;
    c.rope_local_base_freq = 1e4;
    c.rope_factor = rope_factor_of_12b;
    return c;
}

// cos and sin (N, head_dim/2) of position / factor * theta^(-2j/head_dim), fastest axis j.
void rope_table(int64_t n, int64_t head_dim, double theta, double factor, std::vector<float>& cos,
                std::vector<float>& sin) {
    for (int64_t p = 0; p < n; ++p)
        for (int64_t j = 0; j < head_dim / 2; ++j) {
            const double angle = static_cast<double>(p) / factor *
                                 std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_dim));
            cos.push_back(static_cast<float>(std::cos(angle)));
            sin.push_back(static_cast<float>(std::sin(angle)));
        }
}

// Key k is seen by query q when 0 <= q - k < window.
std::vector<ggml_fp16_t> causal_mask(int64_t n, int64_t window) {
    const ggml_fp16_t zero = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
    std::vector<ggml_fp16_t> mask(static_cast<size_t>(n * n), hidden);
    for (int64_t q = 0; q < n; ++q)
        for (int64_t k = std::max<int64_t>(0, q - window + 1); k <= q; ++k) mask[static_cast<size_t>(q * n + k)] = zero;
    return mask;
}

}  // namespace

Gemma3Config Gemma3Config::load(const ModelFiles& files) {
    const TensorInfo* embedding = files.find("language_model.model.embed_tokens.weight");
    if (!embedding)
        throw Error(ErrorCode::model_mismatch,
                    "[text encoder] no Gemma 3 among the files: no language_model.model.embed_tokens.weight (or "
                    "token_embd.weight); add the Gemma 3 folder or GGUF");
    Gemma3Config c{};
    if (files.find("language_model.model.layers.0.layer_scalar") || embedding->file->metadata("gemma_config"))
        refuse(embedding->file->path(), "gemma4");
    if (embedding->file->is_gguf()) {
        const auto architecture = embedding->file->metadata("general.architecture");
        if (architecture != "gemma3") refuse(embedding->file->path(), architecture.value_or("a model without a name"));
        c = from_gguf(*embedding->file, *embedding);
    } else {
        const auto path = std::filesystem::path(embedding->file->path()).parent_path() / "config.json";
        std::error_code ec;
        if (std::filesystem::exists(path, ec)) {
            const Json config = parse_json_file(path.string());
            if (!config.is_object())
                throw Error(ErrorCode::model_file, "[" + path.string() + "] is not a JSON object; the file is damaged");
            c = from_config_json(config, path.string());
        } else if (const auto known = of_12b_from_shapes(files)) {
            log(20, "[text encoder] no config.json beside the weights; they have the sizes of Gemma 3 12B");
            c = *known;
        } else {
            throw Error(ErrorCode::model_file, "[text encoder] " + path.string() +
                                                   " is missing, and the weights are not those of Gemma 3 12B; keep "
                                                   "Gemma's config.json beside its weights");
        }
    }
    if (c.head_dim < 2 || c.head_dim % 2 || c.head_dim > 1024 ||
        static_cast<int64_t>(c.global.size()) != c.num_hidden_layers || !(c.rms_norm_eps > 0 && c.rms_norm_eps < 1) ||
        c.num_attention_heads % c.num_key_value_heads || !(c.rope_factor > 0) || !(c.query_pre_attn_scalar > 0) ||
        !(c.rope_theta > 0) || !(c.rope_local_base_freq > 0) || c.vocab_size < 3)
        throw Error(
            ErrorCode::model_mismatch,
            "[text encoder] the configuration of Gemma 3 contradicts itself; check config.json or the GGUF metadata");
    return c;
}

Gemma3Encoder::Gemma3Encoder(const ModelFiles& files, Workspace& workspace)
    : config_(Gemma3Config::load(files)),
      workspace_(workspace),
      weights_(files, workspace.backend(), where, "language_model.model.") {
    const auto& c = config_;
    // gnorm(x) = rms(x) * (1 + w): Hugging Face stores w, llama.cpp 1 + w.
    const TensorInfo* embedding = files.find("language_model.model.embed_tokens.weight");
    const float plus = embedding->stored_name == "token_embd.weight" ? 0.0f : 1.0f;
    const int64_t q_dim = c.num_attention_heads * c.head_dim, kv_dim = c.num_key_value_heads * c.head_dim;
    embed_tokens_ = weights_.table("embed_tokens.weight", {c.vocab_size, c.hidden_size});
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
        const std::string at = "layers." + std::to_string(i) + ".";
        weights_.begin_block();
        Layer l{};
        l.input_layernorm = weights_.vector(at + "input_layernorm.weight", {c.hidden_size}, plus);
        l.post_attention_layernorm = weights_.vector(at + "post_attention_layernorm.weight", {c.hidden_size}, plus);
        l.pre_feedforward_layernorm = weights_.vector(at + "pre_feedforward_layernorm.weight", {c.hidden_size}, plus);
        l.post_feedforward_layernorm = weights_.vector(at + "post_feedforward_layernorm.weight", {c.hidden_size}, plus);
        l.q_norm = weights_.vector(at + "self_attn.q_norm.weight", {c.head_dim}, plus);
        l.k_norm = weights_.vector(at + "self_attn.k_norm.weight", {c.head_dim}, plus);
        l.q_proj = declare_linear(weights_, at + "self_attn.q_proj", c.hidden_size, q_dim, false);
        l.k_proj = declare_linear(weights_, at + "self_attn.k_proj", c.hidden_size, kv_dim, false);
        l.v_proj = declare_linear(weights_, at + "self_attn.v_proj", c.hidden_size, kv_dim, false);
        l.o_proj = declare_linear(weights_, at + "self_attn.o_proj", q_dim, c.hidden_size, false);
        l.gate_proj = declare_linear(weights_, at + "mlp.gate_proj", c.hidden_size, c.intermediate_size, false);
        l.up_proj = declare_linear(weights_, at + "mlp.up_proj", c.hidden_size, c.intermediate_size, false);
        l.down_proj = declare_linear(weights_, at + "mlp.down_proj", c.intermediate_size, c.hidden_size, false);
        l.global = c.global[static_cast<size_t>(i)];
        layers_.push_back(l);
    }
    norm_ = weights_.vector("norm.weight", {c.hidden_size}, plus);  // comes and goes with the last layer
}

Gemma3Encoder::Tensors::Tensors(const Backend& backend, const Gemma3Config& c, int64_t n, size_t on)
    : device(on), state(backend, where, on) {
    ids = state.tensor("ids", GGML_TYPE_I32, {n});
    h = state.tensor("h", GGML_TYPE_F32, {c.hidden_size, n});
    for (int global = 0; global < 2; ++global) {
        cos[global] = state.tensor("cos", GGML_TYPE_F32, {c.head_dim / 2, 1, n});
        sin[global] = state.tensor("sin", GGML_TYPE_F32, {c.head_dim / 2, 1, n});
        mask[global] = state.tensor("mask", GGML_TYPE_F16, {n, n});
    }
}

std::unique_ptr<Plan> Gemma3Encoder::embedding(const Tensors& t, Trace* trace) const {
    auto plan = std::make_unique<Plan>(workspace_.backend(), where, trace);
    Plan& g = *plan;
    ggml_tensor* rows = ggml_get_rows(g.ctx(), embed_tokens_, t.ids);  // [hidden, n]
    ggml_tensor* scaled =
        ggml_scale(g.ctx(), rows, static_cast<float>(std::sqrt(static_cast<double>(config_.hidden_size))));
    g.store(g.stage(scaled, "embed_tokens"), t.h);
    return plan;
}

// After the last layer the final norm takes the place of the residual.
std::unique_ptr<Plan> Gemma3Encoder::layer(const Tensors& t, size_t index, Trace* trace) const {
    auto plan = std::make_unique<Plan>(workspace_.backend(), where, trace, t.device);
    Plan& g = *plan;
    ggml_context* ctx = g.ctx();
    const auto& c = config_;
    const Layer& l = layers_[index];
    const float eps = static_cast<float>(c.rms_norm_eps);
    const float scale = static_cast<float>(1.0 / std::sqrt(c.query_pre_attn_scalar));
    const int64_t n = t.h->ne[1];
    ggml_tensor *cos = t.cos[l.global], *sin = t.sin[l.global], *h = t.h;
    const auto heads = [&](ggml_tensor* x, int64_t count) { return ggml_reshape_3d(ctx, x, c.head_dim, count, n); };

    ggml_tensor* x = rms_norm(g, h, l.input_layernorm, eps);  // [hidden, n]
    const auto normed = [&](const Linear& to, int64_t count, ggml_tensor* weight) {
        return normed_heads(g, heads(linear(g, to, x), count), weight, c.head_dim, cos, sin, eps);
    };
    ggml_tensor* q = normed(l.q_proj, c.num_attention_heads, l.q_norm);     // [head_dim, H, n]
    ggml_tensor* k = normed(l.k_proj, c.num_key_value_heads, l.k_norm);     // [head_dim, Hkv, n]
    ggml_tensor* v = heads(linear(g, l.v_proj, x), c.num_key_value_heads);  // [head_dim, Hkv, n]
    ggml_tensor* a = attention(g, q, k, v, t.mask[l.global], scale, l.q_proj.w->type == GGML_TYPE_F32);
    a = linear(g, l.o_proj, ggml_reshape_2d(ctx, a, c.head_dim * c.num_attention_heads, n));  // [hidden, n]
    h = ggml_add(ctx, h, rms_norm(g, a, l.post_attention_layernorm, eps));
    ggml_tensor* y = rms_norm(g, h, l.pre_feedforward_layernorm, eps);
    const int64_t work = work_of(g, l.gate_proj, n) + work_of(g, l.up_proj, n) + work_of(g, l.down_proj, n);
    y = by_rows(g, y, c.hidden_size, work, [&](ggml_tensor* part) {
        return linear(
            g, l.down_proj,
            ggml_mul(g.ctx(), linear(g, l.gate_proj, part, Activation::gelu_tanh), linear(g, l.up_proj, part)));
    });
    h = ggml_add(ctx, h, rms_norm(g, y, l.post_feedforward_layernorm, eps));
    h = g.stage(h, "layers." + std::to_string(index));
    if (index + 1 == layers_.size()) h = g.stage(rms_norm(g, h, norm_, eps), "norm");
    g.store(h, t.h);
    return plan;
}

Array Gemma3Encoder::encode(const std::vector<int32_t>& ids, Trace* trace,
                            const std::function<void(int64_t done)>& on_layer) {
    const auto& c = config_;
    const int64_t n = static_cast<int64_t>(ids.size());
    for (int32_t id : ids)
        if (id < 0 || id >= c.vocab_size)
            throw Error(ErrorCode::model_mismatch, "[text encoder] token " + std::to_string(id) +
                                                       " is outside the vocabulary of " + std::to_string(c.vocab_size) +
                                                       "; tokenizer and text encoder are of different models");
    const Backend& backend = workspace_.backend();
    std::vector<float> cos[2], sin[2];
    std::vector<ggml_fp16_t> visible[2];
    for (int global = 0; global < 2; ++global) {
        rope_table(n, c.head_dim, global ? c.rope_theta : c.rope_local_base_freq, global ? c.rope_factor : 1.0,
                   cos[global], sin[global]);
        visible[global] = causal_mask(n, global ? n : c.sliding_window);
    }
    std::vector<std::unique_ptr<Tensors>> places;  // by device
    for (size_t d = 0; d < backend.num_devices(); ++d) {
        Tensors& t = *places.emplace_back(std::make_unique<Tensors>(backend, c, n, d));
        t.state.set(t.ids, ids);
        for (int global = 0; global < 2; ++global) {
            t.state.set(t.cos[global], cos[global]);
            t.state.set(t.sin[global], sin[global]);
            t.state.set(t.mask[global], visible[global].data(), visible[global].size() * sizeof(ggml_fp16_t));
        }
    }

    Array states{{c.num_hidden_layers + 1, n, c.hidden_size}, {}};
    const size_t state_size = static_cast<size_t>(n * c.hidden_size);
    states.data.resize(static_cast<size_t>(states.dim(0)) * state_size);
    const auto keep = [&](const Tensors& t, size_t index) {
        ggml_backend_tensor_get(t.h, &states.data[index * state_size], 0, state_size * sizeof(float));
    };
    Tensors* t = places.front().get();
    workspace_.run(*embedding(*t, trace));
    keep(*t, 0);
    Stream stream({&weights_});
    Stream::Sweep sweep(stream);
    for (size_t i = 0; i < layers_.size(); ++i) {
        sweep.enter(i);
        if (Tensors* next = places[weights_.device_of(i)].get(); next != t) {
            ggml_backend_tensor_copy(t->h, next->h);
            t = next;
        }
        workspace_.run(*layer(*t, i, trace), [&] { sweep.meanwhile(i); });
        sweep.leave(i);
        keep(*t, i + 1);
        if (on_layer) on_layer(static_cast<int64_t>(i + 1));
    }
    return states;
}

MemoryUse Gemma3Encoder::measure(int64_t tokens) {
    const Backend& backend = workspace_.backend();
    std::vector<std::unique_ptr<Tensors>> places;
    for (size_t d = 0; d < backend.num_devices(); ++d)
        places.push_back(std::make_unique<Tensors>(backend, config_, tokens, d));
    MemoryUse most = workspace_.measure_all(*embedding(*places.front(), nullptr));
    for (size_t i = 0; i < layers_.size(); ++i)
        most.also(workspace_.measure_all(*layer(*places[weights_.device_of(i)], i, nullptr)));
    for (size_t d = 0; d < places.size(); ++d) most.inputs[d] += places[d]->state.size();
    most.host += static_cast<size_t>((config_.num_hidden_layers + 1) * tokens * config_.hidden_size) * sizeof(float);
    return most;
}

Array encode_tokens(const ModelFiles& files, const std::vector<int32_t>& ids, bool exact) {
    const Backend backend("cpu", exact, 0);
    Workspace workspace(backend);
    Gemma3Encoder encoder(files, workspace);
    check_weights({&encoder.weights()});
    encoder.weights().acquire({});
    return encoder.encode(ids, nullptr);
}

}  // namespace sdltx
