#include "encoder.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <optional>

#include "base/json.h"
#include "base/log.h"
#include "gemma/config.h"
#include "ggml/attention.h"

namespace sdltx {

namespace {

constexpr const char* where = "text encoder";
constexpr int64_t hidden_of_12b = 3840;
constexpr double rope_factor_of_12b = 8;

// Every nth layer attends globally, or a list says which do.
std::vector<bool> global_layers(const Json& j, int64_t layers) {
    if (j.contains("layer_types") && !j.at("layer_types").is_null()) return read_layer_types(j);
    const char* key = j.contains("sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    const int64_t n = value_or<int64_t>(j, key, 6, where);
    std::vector<bool> global;
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

constexpr TowerLimits limits = tower_limits;

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
    static_cast<TowerSizes&>(c) = read_tower_sizes(j);
    c.num_key_value_heads = require_count(j, "num_key_value_heads", limits.heads, where);
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
    const GgufNumbers of(file, "gemma3");
    Gemma3Config c{};
    static_cast<TowerSizes&>(c) = of.sizes();
    c.num_key_value_heads = of.whole("attention.head_count_kv", limits.heads);
    c.head_dim = of.whole("attention.key_length", limits.head_dim);
    c.vocab_size = embedding.shape.empty() ? 0 : embedding.shape.front();
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) c.global.push_back((i + 1) % 6 == 0);
    // llama.cpp's converter keeps no query_pre_attn_scalar: in Gemma 3 it is head_dim for all sizes but 27B.
    c.query_pre_attn_scalar = c.num_hidden_layers == 62
                                  ? static_cast<double>(c.hidden_size) / static_cast<double>(c.num_attention_heads)
                                  : static_cast<double>(c.head_dim);
    c.rms_norm_eps = of.number("attention.layer_norm_rms_epsilon");
    c.rope_theta = of.number("rope.freq_base", 1e6);
    c.rope_local_base_freq = of.number("rope.freq_base_swa", 1e4);
    c.rope_factor = of.number("rope.scaling.factor", c.hidden_size == hidden_of_12b ? rope_factor_of_12b : 1);
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

TowerShape shape_of(const Gemma3Config& c) {
    return {c.hidden_size,
            c.num_hidden_layers,
            c.vocab_size,
            c.rms_norm_eps,
            {AttentionKind{c.head_dim, c.num_key_value_heads, c.sliding_window,
                           rotary_frequencies(c.head_dim, c.rope_local_base_freq)},
             AttentionKind{c.head_dim, c.num_key_value_heads, 0,
                           rotary_frequencies(c.head_dim, c.rope_theta, c.rope_factor)}}};
}

}  // namespace

Gemma3Config Gemma3Config::load(const ModelFiles& files) {
    const TensorInfo* embedding = files.find("language_model.model.embed_tokens.weight");
    if (!embedding)
        throw Error(ErrorCode::model_mismatch,
                    "[text encoder] no Gemma 3 among the files: no language_model.model.embed_tokens.weight (or "
                    "token_embd.weight); add the Gemma 3 folder or GGUF");
    Gemma3Config c{};
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
    : Gemma3Encoder(files, workspace, Gemma3Config::load(files)) {}

Gemma3Encoder::Gemma3Encoder(const ModelFiles& files, Workspace& workspace, const Gemma3Config& c)
    : TextTower(files, workspace, shape_of(c)), config_(c) {
    // gnorm(x) = rms(x) * (1 + w): Hugging Face stores w, llama.cpp 1 + w.
    const TensorInfo* embedding = files.find("language_model.model.embed_tokens.weight");
    const float plus = embedding->stored_name == "token_embd.weight" ? 0.0f : 1.0f;
    for (int64_t i = 0; i < c.num_hidden_layers; ++i)
        layers_.push_back(declare_layer(
            i, {c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.intermediate_size, true, plus}));
    declare_norm(plus);
    declare_head();
}

ggml_tensor* Gemma3Encoder::layer(Plan& g, const Tensors& t, size_t index) const {
    ggml_context* ctx = g.ctx();
    const auto& c = config_;
    const TowerLayer& l = layers_[index];
    const bool global = c.global[index];
    const float scale = static_cast<float>(1.0 / std::sqrt(c.query_pre_attn_scalar));
    const int64_t n = t.h->ne[1];
    const auto heads = [&](ggml_tensor* x, int64_t count) { return ggml_reshape_3d(ctx, x, c.head_dim, count, n); };

    ggml_tensor* x = rms_norm(g, t.h, l.input_layernorm, eps());  // [hidden, n]
    const auto normed = [&](const Linear& to, int64_t count, ggml_tensor* weight) {
        return normed_heads(g, heads(linear(g, to, x), count), weight, c.head_dim, t.cos[global], t.sin[global], eps());
    };
    ggml_tensor* q = normed(l.q_proj, c.num_attention_heads, l.q_norm);     // [head_dim, H, n]
    ggml_tensor* k = normed(l.k_proj, c.num_key_value_heads, l.k_norm);     // [head_dim, Hkv, n]
    ggml_tensor* v = heads(linear(g, l.v_proj, x), c.num_key_value_heads);  // [head_dim, Hkv, n]
    remember(g, t, index, k, v);
    ggml_tensor* a = attention(g, q, k, v, t.mask[global], scale, l.q_proj.w->type == GGML_TYPE_F32);
    return behind_attention(g, l, t.h, ggml_reshape_2d(ctx, a, c.head_dim * c.num_attention_heads, n));
}

}  // namespace sdltx
