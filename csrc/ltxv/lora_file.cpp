#include "lora_file.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>
#include <unordered_map>

#include "base/json.h"
#include "ggml/values.h"

namespace fs = std::filesystem;

namespace sdltx {

namespace {

enum class Role { down, up, up_bias, alpha, diff, diff_bias };
struct Ending {
    const char* text;  // * stands for the name of an adapter
    Role role;
};
constexpr Ending endings[] = {
    {".lora_A.weight", Role::down},    {".lora_B.weight", Role::up},
    {".lora_A.*.weight", Role::down},  {".lora_B.*.weight", Role::up},
    {".lora_A", Role::down},           {".lora_B", Role::up},
    {".lora_down.weight", Role::down}, {".lora_up.weight", Role::up},
    {".lora.down.weight", Role::down}, {".lora.up.weight", Role::up},
    {".lora_B.bias", Role::up_bias},   {".lora_B.*.bias", Role::up_bias},
    {".lora_up.bias", Role::up_bias},  {".lora.up.bias", Role::up_bias},
    {".alpha", Role::alpha},           {".diff", Role::diff},
    {".diff_b", Role::diff_bias},      {".w_norm", Role::diff},
    {".b_norm", Role::diff_bias},
};
// What changes weights in other ways than by a sum.
constexpr std::array<const char*, 2> foreign[] = {
    {".dora_scale", "DoRA"},
    {".lora_magnitude_vector", "DoRA"},
    {".magnitude", "DoRA"},
    {".hada_", "LoHa"},
    {".lokr_", "LoKr"},
    {".oft_", "OFT"},
    {".lora_mid", "a LoRA with a middle matrix"},
    {".set_weight", "weights in place of the model's"},
    {".reshape_weight", "weights of another shape"},
};
// Taken away as often as one fits.
constexpr const char* prefixes[] = {"base_model.model.", "model.diffusion_model.", "diffusion_model.",
                                    "velocity_model.",   "transformer.",           "unet."};
constexpr const char* flat_prefixes[] = {"lora_unet_", "lora_transformer_", "lycoris_"};  // and _ for every dot
// First parts of names in diffusers, and in the releases.
constexpr std::array<const char*, 2> diffusers[] = {
    {"proj_in", "patchify_proj"},
    {"audio_proj_in", "audio_patchify_proj"},
    {"time_embed", "adaln_single"},
    {"audio_time_embed", "audio_adaln_single"},
    {"prompt_adaln", "prompt_adaln_single"},
    {"audio_prompt_adaln", "audio_prompt_adaln_single"},
    {"av_cross_attn_video_scale_shift", "av_ca_video_scale_shift_adaln_single"},
    {"av_cross_attn_audio_scale_shift", "av_ca_audio_scale_shift_adaln_single"},
    {"av_cross_attn_video_a2v_gate", "av_ca_a2v_gate_adaln_single"},
    {"av_cross_attn_audio_v2a_gate", "av_ca_v2a_gate_adaln_single"},
};

bool starts_with(const std::string& s, const std::string& start) { return s.compare(0, start.size(), start) == 0; }

[[noreturn]] void fail(const ModelFile& file, const std::string& what, ErrorCode code = ErrorCode::model_mismatch) {
    throw Error(code, "[" + file.path() + "] " + what);
}

// The name without an ending, or nothing if it has another one.
std::optional<std::string> without(const std::string& name, const std::string& ending) {
    const size_t star = ending.find('*');
    const std::string tail = star == std::string::npos ? ending : ending.substr(star + 1);
    if (name.size() <= tail.size() || !ends_with(name, tail)) return std::nullopt;
    std::string rest = name.substr(0, name.size() - tail.size());
    if (star == std::string::npos) return rest;
    const size_t dot = rest.rfind('.');
    if (dot == std::string::npos || dot + 1 == rest.size()) return std::nullopt;
    rest.resize(dot + 1);
    const std::string head = ending.substr(0, star);
    if (rest.size() <= head.size() || !ends_with(rest, head)) return std::nullopt;
    return rest.substr(0, rest.size() - head.size());
}

// The weights of the transformer and its modules, which have a weight and perhaps a bias, under all their names.
class Names {
 public:
    explicit Names(const std::vector<Weights::Tensor>& transformer) {
        for (const Weights::Tensor& t : transformer) {
            weights_[t.name] = &t;
            std::string module = t.name;
            for (const char* tail : {".weight", ".bias"})
                if (ends_with(t.name, tail)) module.resize(t.name.size() - std::string(tail).size());
            add(module, module);
            const std::string first = module.substr(0, module.find('.'));
            for (auto& [theirs, ours] : diffusers)
                if (first == ours) add(theirs + module.substr(first.size()), module);
        }
    }
    // The module that a file calls `name`; empty if there is none.
    std::string module_of(const std::string& name) const {
        const std::string bare = without_prefixes(name, prefixes);
        if (const auto found = modules_.find(bare); found != modules_.end()) return found->second;
        const std::string flat = without_prefixes(name, flat_prefixes);
        if (flat == name) return "";
        const auto found = flat_.find(flat);
        return found == flat_.end() ? "" : found->second;
    }
    // Whether a file means a weight or a module of the transformer, whatever follows its name.
    bool knows(const std::string& name) const {
        std::string bare = without_prefixes(name, prefixes);
        for (; !bare.empty(); bare.resize(bare.find_last_of('.') == std::string::npos ? 0 : bare.find_last_of('.')))
            if (modules_.count(bare)) return true;
        return !module_of(name.substr(0, name.find('.'))).empty();
    }
    const Weights::Tensor* weight(const std::string& module) const {
        if (const auto* t = find(module + ".weight")) return t;
        return find(module);
    }
    const Weights::Tensor* bias(const std::string& module) const { return find(module + ".bias"); }

 private:
    void add(const std::string& name, const std::string& module) {
        modules_[name] = module;
        std::string flat = name;
        std::replace(flat.begin(), flat.end(), '.', '_');
        flat_[flat] = module;
    }
    template <size_t N>
    static std::string without_prefixes(std::string name, const char* const (&known)[N]) {
        for (bool again = true; again;) {
            again = false;
            for (const char* prefix : known)
                if (starts_with(name, prefix)) {
                    name.erase(0, std::string(prefix).size());
                    again = true;
                }
        }
        return name;
    }
    const Weights::Tensor* find(const std::string& name) const {
        const auto found = weights_.find(name);
        return found == weights_.end() ? nullptr : found->second;
    }
    std::unordered_map<std::string, const Weights::Tensor*> weights_;
    std::unordered_map<std::string, std::string> modules_, flat_;
};

// --- alpha ---

// What trainers say of a whole file: in `lora_adapter_metadata` (diffusers), in single keys of the header
// (SimpleTuner), or in adapter_config.json beside it (PEFT). Keys may have the name of the network before them; those
// of other networks do not count.
class Settings {
 public:
    Settings(const ModelFile& file, const Names& names) : file_(file), names_(names) {
        const auto take_all = [&](const Json& j, const std::string& where) {
            if (!j.is_object()) fail(file, where + " is not a JSON object", ErrorCode::model_file);
            for (auto& [key, value] : j.items())
                if (const auto known = known_key(key)) take(*known, value);
        };
        const fs::path path(file.path());
        std::error_code problem;
        const fs::path config = path.parent_path() / "adapter_config.json";
        const bool of_peft = std::any_of(file.tensors().begin(), file.tensors().end(),
                                         [](auto& t) { return starts_with(t.stored_name, "base_model.model."); });
        if ((of_peft || path.filename() == "adapter_model.safetensors") && fs::exists(config, problem))
            take_all(parse_json_file(config.string()), "adapter_config.json beside it");
        // Lightricks' own files tell an alpha beside the rank, which the reference does not read: some of their layers
        // have a lower rank than that (ltx-2.5.md section 9).
        const bool of_release = file.metadata("lora_rank").has_value();
        for (auto& [key, text] : file.texts()) {
            if (of_release && key == "lora_alpha") continue;
            if (key == "lora_adapter_metadata") {
                take_all(parse_json_value(text, file.path() + "] [lora_adapter_metadata"), key);
            } else if (const auto known = known_key(key)) {
                const bool none = text == "None" || text.empty();
                const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
                take(*known, none ? Json() : value.is_discarded() ? Json(text) : value);
            }
        }
        const auto refuse = [&](const std::string& what) {
            fail(file,
                 "says that it is " + what + ", which is not implemented; plain LoRAs are, and .diff and .diff_b");
        };
        if (flag("use_dora")) refuse("DoRA");
        if (flag("fan_in_fan_out")) refuse("of transposed matrices (fan_in_fan_out)");
        if (const auto type = values_.find("peft_type"); type != values_.end() && type->second != "LORA")
            refuse("of the kind " + spell(type->second));
        flag("use_rslora");  // throws for what is neither
        if (const auto patterns = values_.find("alpha_pattern"); patterns != values_.end()) {
            if (!patterns->second.is_object())
                fail(file, "has the alpha_pattern " + spell(patterns->second) + ", which is no JSON object",
                     ErrorCode::model_file);
            for (auto& [pattern, value] : patterns->second.items()) {
                if (pattern.find_first_of("*+?^$|()[]{}\\") != std::string::npos)
                    fail(file, "has the alpha_pattern '" + pattern + "'; only names of modules are implemented");
                patterns_[pattern] = number("alpha_pattern", value);
                unused_.insert(pattern);
            }
        }
        if (const auto all = values_.find("lora_alpha"); all != values_.end())
            alpha_ = number("lora_alpha", all->second);
    }
    // Alpha of a module, which the file calls `spelled`, if there is one for it.
    std::optional<float> alpha(const std::string& module, const std::string& spelled) {
        std::optional<float> found;
        for (auto& [pattern, value] : patterns_) {
            const auto ends_as = [&, &end = pattern](const std::string& name) {
                return name == end || ends_with(name, "." + end);
            };
            if (!ends_as(module) && !ends_as(spelled) && names_.module_of(pattern) != module) continue;
            unused_.erase(pattern);
            if (found && *found != value)
                fail(file_, "has several values in its alpha_pattern for '" + spelled + "', such as that of '" +
                                pattern + "'");
            found = value;
        }
        return found ? found : alpha_;
    }
    // Patterns that fit no module.
    const std::set<std::string>& unused() const { return unused_; }
    // What alpha is divided by.
    float divisor(int64_t rank) const {
        const auto r = static_cast<float>(rank);
        return flag("use_rslora") ? std::sqrt(r) : r;
    }

 private:
    // Which setting a key stands for; nothing for others, and for those of other networks.
    static std::optional<std::string> known_key(const std::string& key) {
        constexpr const char* keys[] = {"lora_alpha", "alpha_pattern",  "use_rslora",
                                        "use_dora",   "fan_in_fan_out", "peft_type"};
        constexpr const char* networks[] = {"", "transformer.", "diffusion_model.", "model.diffusion_model.", "unet."};
        for (const char* network : networks)
            for (const char* known : keys)
                if (key == std::string(network) + known) return known;
        return std::nullopt;
    }
    void take(const std::string& key, const Json& value) {
        if (!value.is_null()) values_[key] = value;
    }
    bool flag(const char* key) const {
        const auto found = values_.find(key);
        if (found == values_.end()) return false;
        const Json& value = found->second;
        for (const auto& [meant, spellings] :
             {std::pair<bool, Json>{true, {true, 1, "true", "True", "1"}}, {false, {false, 0, "false", "False", "0"}}})
            if (std::find(spellings.begin(), spellings.end(), value) != spellings.end()) return meant;
        fail(file_, std::string("has the ") + key + " " + spell(value) + ", which is neither true nor false",
             ErrorCode::model_file);
    }
    float number(const std::string& key, const Json& value) const {
        const float n = value.is_number() ? value.get<float>() : std::nanf("");
        if (!std::isfinite(n))
            fail(file_, "has the " + key + " " + spell(value) + ", which is no number", ErrorCode::model_file);
        return n;
    }
    const ModelFile& file_;
    const Names& names_;
    std::map<std::string, Json> values_;
    std::optional<float> alpha_;
    std::map<std::string, float> patterns_;
    std::set<std::string> unused_;
};

// The name between .lora_A or .lora_B and the end of a tensor's name; empty for none.
std::string adapter_of(const std::string& name) {
    for (const char* mark : {".lora_A.", ".lora_B."})
        if (const size_t at = name.find(mark); at != std::string::npos) {
            const std::string rest = name.substr(at + std::string(mark).size());
            return rest.substr(0, rest.find('.') == std::string::npos ? 0 : rest.find('.'));
        }
    return "";
}

float alpha_of(const ModelFile& file, const TensorInfo& t) {
    const std::optional<double> value = t.elements() == 1 ? number_of(t) : std::nullopt;
    if (!value || !std::isfinite(*value))
        fail(file, "'" + t.stored_name + "' (" + t.dtype + " " + spell_shape(t.shape) + ") is not a finite number",
             ErrorCode::model_file);
    return static_cast<float>(*value);
}

// --- modules ---

struct Module {
    std::map<Role, const TensorInfo*> tensors;
    const TensorInfo* at(Role role) const {
        const auto found = tensors.find(role);
        return found == tensors.end() ? nullptr : found->second;
    }
};

void check_readable(const ModelFile& file, const TensorInfo& t) {
    if (!readable(t)) fail(file, "'" + t.stored_name + "' has the unsupported type " + t.dtype);
}

void check_pair(const ModelFile& file, const std::string& name, const TensorInfo* down, const TensorInfo* up,
                const Weights::Tensor& w) {
    if (!down || !up) fail(file, "'" + name + "' has one of its two matrices; the file is not complete");
    if (adapter_of(down->stored_name) != adapter_of(up->stored_name))
        fail(file, "'" + down->stored_name + "' and '" + up->stored_name + "' are of two adapters; keep one of them");
    for (const TensorInfo* t : {down, up}) check_readable(file, *t);
    const auto &a = down->shape, &b = up->shape;
    if (w.shape.size() != 2 || a.size() != 2 || b.size() != 2 || a[0] < 1 || a[0] != b[1] || a[1] != w.shape[1] ||
        b[0] != w.shape[0])
        fail(file, "'" + name + "' has the shapes " + spell_shape(a) + " and " + spell_shape(b) +
                       ", which do not fit the model's " + spell_shape(w.shape) + "; it is a LoRA of another model");
}

// A tensor that is added to a weight as it is.
void check_whole(const ModelFile& file, const TensorInfo& t, const Weights::Tensor* w) {
    check_readable(file, t);
    if (!w) fail(file, "'" + t.stored_name + "' changes a weight that the model does not have");
    if (t.shape != w->shape)
        fail(file, "'" + t.stored_name + "' has the shape " + spell_shape(t.shape) +
                       ", which does not fit the model's " + spell_shape(w->shape) + "; it is a LoRA of another model");
}

// What the file calls it, by the transformer's name.
struct Found {
    std::string name;
    Module module;
};

std::map<std::string, Found> modules_of(const ModelFile& file, const Names& names, std::set<std::string>& unknown) {
    std::map<std::string, Found> found;
    for (const TensorInfo& t : file.tensors()) {
        for (auto& [mark, what] : foreign)
            if (t.stored_name.find(mark) != std::string::npos)
                fail(file, "'" + t.stored_name + "' is of a kind of adapter that is not implemented (" + what +
                               "); plain LoRAs are, and .diff and .diff_b");
        std::optional<std::string> name;
        Role role{};
        for (const Ending& e : endings)
            if ((name = without(t.stored_name, e.text))) {
                role = e.role;
                break;
            }
        const std::string module = name ? names.module_of(*name) : "";
        if (module.empty()) {
            if (!name && names.knows(t.stored_name))
                fail(file, "'" + t.stored_name +
                               "' is no part of a LoRA; weights in place of the model's are not implemented");
            unknown.insert(name.value_or(t.stored_name));
            continue;
        }
        Found& f = found[module];
        if (f.name.empty()) f.name = *name;
        if (!f.module.tensors.emplace(role, &t).second)
            fail(file, "has '" + module + "' twice, as '" + f.module.at(role)->stored_name + "' and '" + t.stored_name +
                           "'; keep one of them");
    }
    return found;
}

}  // namespace

LoraContents read_lora(const ModelFile& file, const std::vector<Weights::Tensor>& transformer) {
    const Names names(transformer);
    Settings settings(file, names);
    LoraContents contents;
    for (auto& [module, found] : modules_of(file, names, contents.unknown)) {
        const Module& m = found.module;
        const Weights::Tensor *weight = names.weight(module), *bias = names.bias(module);
        const TensorInfo *down = m.at(Role::down), *up = m.at(Role::up), *alpha = m.at(Role::alpha);
        float scale = 1;
        if (down || up || alpha || m.at(Role::up_bias)) {
            if (!weight) fail(file, "'" + found.name + "' changes a weight that the model does not have");
            check_pair(file, found.name, down, up, *weight);
            const int64_t rank = down->shape[0];
            if (alpha)
                scale = alpha_of(file, *alpha) / settings.divisor(rank);
            else if (const auto of_file = settings.alpha(module, found.name))
                scale = *of_file / settings.divisor(rank);
            contents.additions[weight->name].push_back({down, up, nullptr, scale});
        }
        const auto add_whole = [&](const TensorInfo* t, const Weights::Tensor* w, float by) {
            if (!t) return;
            check_whole(file, *t, w);
            contents.additions[w->name].push_back({nullptr, nullptr, t, by});
        };
        add_whole(m.at(Role::up_bias), bias, scale);
        add_whole(m.at(Role::diff), weight, 1);
        add_whole(m.at(Role::diff_bias), bias, 1);
        ++contents.modules;
    }
    for (const std::string& pattern : settings.unused()) contents.unknown.insert(pattern + " (alpha_pattern)");
    return contents;
}

}  // namespace sdltx
