#include "config.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/log.h"
#include "ggml/values.h"

namespace sdltx {

namespace {

constexpr const char* where = "text encoder";
constexpr const char* prefix = "language_model.model.";
constexpr int64_t hidden_of_12b = 3840;

const TensorInfo* find(const ModelFiles& files, const std::string& name) { return files.find(prefix + name); }

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
    throw Error(ErrorCode::model_mismatch, "[" + path + "] the text encoder is " + what +
                                               "; LTX-2.5 takes Gemma 4 12B as it was released with it "
                                               "(gemma4-12b-with-proj-ltx-2.5)");
}

// The parts of the family that this tower does not have.
void check_kind(const std::string& path, bool per_layer_inputs, bool shared_keys, bool experts) {
    if (per_layer_inputs || shared_keys) refuse(path, "Gemma 4 E2B or E4B");
    if (experts) refuse(path, "Gemma 4 26B-A4B, a mixture of experts");
}

Gemma4Config::Kind read_kind(const Json& j, const char* type, int64_t head_dim, int64_t heads) {
    const Json& of_kinds = require<Json>(j, "rope_parameters", where);
    const Json rope = require<Json>(of_kinds, type, where);
    Gemma4Config::Kind kind{head_dim, heads, require<double>(rope, "rope_theta", where), head_dim / 2};
    const auto rope_type = value_or<std::string>(rope, "rope_type", "default", where);
    if (rope_type == "proportional")
        kind.rotated_pairs = static_cast<int64_t>(value_or<double>(rope, "partial_rotary_factor", 1, where) *
                                                  static_cast<double>(head_dim)) /
                             2;
    else if (rope_type != "default")
        throw Error(ErrorCode::model_mismatch,
                    std::string("[") + where + "] rotary scaling " + spell(Json(rope_type)) + " is not implemented");
    return kind;
}

Gemma4Config from_json(const Json& top, const std::string& path) {
    const auto type = value_or<std::string>(top, "model_type", "gemma4_unified", where);
    // The dense ones write and read, but no transformer of LTX-2 was trained with their states.
    if (type != "gemma4_unified" && type != "gemma4_unified_text")
        refuse(path, type == "gemma4" ? "a Gemma 4 of another kind ('gemma4', such as E2B)" : "'" + type + "'");
    const Json& j = top.contains("text_config") ? top.at("text_config") : top;
    const auto positive = [&](const char* key) {
        return j.contains(key) && j.at(key).is_number() && j.at(key).get<double>() > 0;
    };
    check_kind(path, positive("hidden_size_per_layer_input"), positive("num_kv_shared_layers"),
               value_or(j, "enable_moe_block", false, where));
    require_value(j, "attention_k_eq_v", true, where);
    if (value_or(j, "attention_bias", false, where))
        throw Error(ErrorCode::model_mismatch, "[text encoder] attention_bias is not implemented");
    if (const auto act = value_or<std::string>(j, "hidden_activation", "gelu_pytorch_tanh", where);
        act != "gelu_pytorch_tanh")
        throw Error(ErrorCode::model_mismatch, "[text encoder] the activation '" + act + "' is not implemented");
    constexpr TowerLimits limits = tower_limits;
    Gemma4Config c{};
    static_cast<TowerSizes&>(c) = read_tower_sizes(j);
    c.vocab_size = require_count(j, "vocab_size", limits.hidden, where);
    c.rms_norm_eps = require<double>(j, "rms_norm_eps", where);
    c.global = read_layer_types(j);
    c.sliding = read_kind(j, "sliding_attention", require_count(j, "head_dim", limits.head_dim, where),
                          require_count(j, "num_key_value_heads", limits.heads, where));
    c.full = read_kind(j, "full_attention", require_count(j, "global_head_dim", limits.head_dim, where),
                       require_count(j, "num_global_key_value_heads", limits.heads, where));
    for (const char* key : {"image_token_id", "audio_token_id", "video_token_id"})
        if (top.contains(key) && !top.at(key).is_null())
            c.placeholders.push_back(
                static_cast<int32_t>(std::min<int64_t>(require<int64_t>(top, key, where), INT32_MAX)));
    c.version = value_or<std::string>(top, "gemma_version", "", where);
    return c;
}

// The tokens of pictures, sound and films of the released vocabulary.
std::vector<int32_t> placeholders_of_release() { return {258880, 258881, 258884}; }

// llama.cpp stores by how much each frequency of the global layers is divided: 1, or so much that nothing turns.
int64_t rotated_pairs(const ModelFiles& files, int64_t head_dim) {
    const TensorInfo* t = find(files, "rope_freqs.weight");
    if (!t || t->type != GGML_TYPE_F32 || t->elements() != head_dim / 2) return head_dim / 8;
    t->used = true;
    std::vector<float> divisors(static_cast<size_t>(head_dim / 2));
    read_values(*t, 0, head_dim / 2, divisors.data());
    const auto turned = std::find_if(divisors.begin(), divisors.end(), [](float d) { return d != 1.0f; });
    for (auto d = turned; d != divisors.end(); ++d)
        if (!(*d >= 1e20f))
            throw Error(ErrorCode::model_mismatch, "[" + t->file->path() +
                                                       "] rope_freqs.weight scales frequencies in a way that "
                                                       "is not implemented; use another GGUF of Gemma 4 12B");
    return turned - divisors.begin();
}

Gemma4Config from_gguf(const ModelFiles& files, const ModelFile& file, int64_t vocab_size) {
    const GgufNumbers of(file, "gemma4");
    constexpr TowerLimits limits = tower_limits;
    check_kind(file.path(), of.number("embedding_length_per_layer_input", 0) > 0,
               of.number("attention.shared_kv_layers", of.number("shared_kv_layers", 0)) > 0,
               of.number("expert_count", 0) > 0);
    Gemma4Config c{};
    static_cast<TowerSizes&>(c) = of.sizes();
    c.vocab_size = vocab_size;
    c.rms_norm_eps = of.number("attention.layer_norm_rms_epsilon");
    const int64_t sliding = of.whole("attention.key_length_swa", limits.head_dim),
                  full = of.whole("attention.key_length", limits.head_dim);
    c.sliding = {sliding, 1, of.number("rope.freq_base_swa", 1e4), sliding / 2};
    c.full = {full, 1, of.number("rope.freq_base", 1e6), rotated_pairs(files, full)};
    for (double windowed : of.of_layers("attention.sliding_window_pattern", c.num_hidden_layers))
        c.global.push_back(windowed == 0);
    const std::vector<double> heads = of.of_layers("attention.head_count_kv", c.num_hidden_layers);
    for (size_t i = 0; i < heads.size(); ++i) {
        const auto n = static_cast<int64_t>(std::clamp(heads[i], 0.0, static_cast<double>(limits.heads)));
        (c.global[i] ? c.full : c.sliding).key_value_heads = n;
    }
    c.placeholders = placeholders_of_release();
    c.version = file.metadata("gemma_version").value_or("");
    return c;
}

// Files of the community come without a configuration. Shapes tell the sizes; the rest is known of Gemma 4 12B.
std::optional<Gemma4Config> of_12b_from_shapes(const ModelFiles& files) {
    const auto dim = [&](const std::string& name, size_t axis) -> int64_t {
        const TensorInfo* t = find(files, name);
        return t && axis < t->shape.size() ? t->shape[axis] : 0;
    };
    Gemma4Config c{};
    c.hidden_size = dim("embed_tokens.weight", 1);
    c.vocab_size = dim("embed_tokens.weight", 0);
    if (c.hidden_size != hidden_of_12b) return std::nullopt;
    for (int64_t head_dim;
         (head_dim = dim("layers." + std::to_string(c.num_hidden_layers) + ".self_attn.q_norm.weight", 0)) > 0;
         ++c.num_hidden_layers) {
        const std::string at = "layers." + std::to_string(c.num_hidden_layers) + ".self_attn.";
        const bool global = !find(files, at + "v_proj.weight");
        c.global.push_back(global);
        Gemma4Config::Kind& kind = global ? c.full : c.sliding;
        kind.head_dim = head_dim;
        kind.key_value_heads = dim(at + "k_proj.weight", 0) / head_dim;
        kind.rope_theta = global ? 1e6 : 1e4;
        kind.rotated_pairs = global ? head_dim / 8 : head_dim / 2;
        c.num_attention_heads = dim(at + "q_proj.weight", 0) / head_dim;
    }
    c.intermediate_size = dim("layers.0.mlp.gate_proj.weight", 0);
    c.sliding_window = 1024;
    c.rms_norm_eps = 1e-6;
    c.placeholders = placeholders_of_release();
    return c;
}

}  // namespace

bool Gemma4Config::is_among(const ModelFiles& files) {
    const TensorInfo* embedding = find(files, "embed_tokens.weight");
    if (!embedding) return false;
    const ModelFile& file = *embedding->file;
    if (find(files, "layers.0.layer_scalar")) return true;
    if (const auto text = file.metadata("gemma_config")) {
        const Json config = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
        const Json type = config.is_object() ? config.value("model_type", Json()) : Json();
        return !type.is_string() || type.get<std::string>().rfind("gemma4", 0) == 0;
    }
    if (file.is_gguf() && file.metadata("general.architecture") == "gemma4") return true;
    // Global layers have keys for values.
    return find(files, "layers.5.self_attn.k_proj.weight") && !find(files, "layers.5.self_attn.v_proj.weight");
}

Gemma4Config Gemma4Config::load(const ModelFiles& files) {
    const TensorInfo* embedding = find(files, "embed_tokens.weight");
    const ModelFile& file = *embedding->file;
    Gemma4Config c{};
    const auto beside = std::filesystem::path(file.path()).parent_path() / "config.json";
    std::error_code ec;
    if (const auto text = file.metadata("gemma_config")) {
        c = from_json(parse_json(*text, "gemma_config metadata"), file.path());
    } else if (file.is_gguf() && file.metadata("general.architecture") == "gemma4") {
        c = from_gguf(files, file, embedding->shape.empty() ? 0 : embedding->shape.front());
    } else if (!file.is_gguf() && std::filesystem::exists(beside, ec)) {
        c = from_json(parse_json(parse_json_file(beside.string()).dump(), beside.string()), beside.string());
    } else if (const auto known = of_12b_from_shapes(files)) {
        log(20, "[text encoder] no configuration in its file; it has the sizes of Gemma 4 12B");
        c = *known;
    } else {
        refuse(file.path(), "a Gemma 4 of another size, without a configuration");
    }
    const auto fits = [&](const Gemma4Config::Kind& kind) {
        return kind.head_dim >= 2 && kind.head_dim % 2 == 0 && kind.key_value_heads >= 1 &&
               c.num_attention_heads % kind.key_value_heads == 0 && kind.rope_theta > 0 &&
               std::isfinite(kind.rope_theta) && kind.rotated_pairs >= 0 && kind.rotated_pairs <= kind.head_dim / 2;
    };
    if (c.num_hidden_layers < 1 || static_cast<int64_t>(c.global.size()) != c.num_hidden_layers ||
        c.num_attention_heads < 1 || c.intermediate_size < 1 || c.vocab_size < 3 || !fits(c.sliding) || !fits(c.full) ||
        !(c.rms_norm_eps > 0 && c.rms_norm_eps < 1))
        throw Error(ErrorCode::model_mismatch,
                    "[" + file.path() + "] the configuration of Gemma 4 contradicts itself; get the file again");
    return c;
}

}  // namespace sdltx
