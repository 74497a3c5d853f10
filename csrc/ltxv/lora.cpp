#include "lora.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <unordered_map>

#include "ggml/values.h"
#include "parallel.h"

namespace sdltx {

namespace {

enum class Role { down, up, alpha };
struct Ending {
    const char* text;
    Role role;
};
constexpr Ending endings[] = {
    {".lora_A.weight", Role::down},       {".lora_B.weight", Role::up},      {".lora_A.default.weight", Role::down},
    {".lora_B.default.weight", Role::up}, {".lora_down.weight", Role::down}, {".lora_up.weight", Role::up},
    {".lora.down.weight", Role::down},    {".lora.up.weight", Role::up},     {".alpha", Role::alpha},
};
// Marks of other ways to change a matrix.
constexpr const char* foreign[] = {".hada_", ".lokr_", ".dora_scale", ".oft_"};
// The first that fits is taken away.
constexpr const char* prefixes[] = {"model.diffusion_model.", "diffusion_model.", "base_model.model.", "transformer.",
                                    ""};
constexpr const char* flat_prefixes[] = {"lora_unet_", "lora_transformer_"};  // and _ for every dot
// First parts of names in diffusers, and in the releases.
constexpr const char* diffusers[][2] = {
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

// A matrix of the transformer under the names that files have for it.
class Modules {
 public:
    explicit Modules(const std::vector<Weights::Matrix>& matrices) {
        const std::string tail = ".weight";
        for (const Weights::Matrix& m : matrices) {
            if (m.name.size() <= tail.size() || m.name.compare(m.name.size() - tail.size(), tail.size(), tail) != 0)
                continue;
            const std::string name = m.name.substr(0, m.name.size() - tail.size());
            by_name_[name] = &m;
            std::string flat = name;
            std::replace(flat.begin(), flat.end(), '.', '_');
            by_flat_name_[flat] = &m;
        }
    }
    const Weights::Matrix* find(const std::string& name) const {
        for (const char* prefix : prefixes) {
            if (name.rfind(prefix, 0) != 0) continue;
            const std::string rest = name.substr(std::string(prefix).size());
            if (const auto* m = at(by_name_, rest)) return m;
            const std::string first = rest.substr(0, rest.find('.'));
            for (auto& [theirs, ours] : diffusers)
                if (first == theirs)
                    if (const auto* m = at(by_name_, ours + rest.substr(first.size()))) return m;
        }
        for (const char* prefix : flat_prefixes)
            if (name.rfind(prefix, 0) == 0)
                if (const auto* m = at(by_flat_name_, name.substr(std::string(prefix).size()))) return m;
        return nullptr;
    }

 private:
    using Map = std::unordered_map<std::string, const Weights::Matrix*>;
    static const Weights::Matrix* at(const Map& map, const std::string& name) {
        const auto found = map.find(name);
        return found == map.end() ? nullptr : found->second;
    }
    Map by_name_, by_flat_name_;
};

struct Pair {
    const TensorInfo *down = nullptr, *up = nullptr, *alpha = nullptr;
    float scale = 0;
    int64_t rank() const { return down->shape[0]; }
};

std::map<std::string, Pair> pairs_of(const ModelFile& file) {
    std::map<std::string, Pair> pairs;
    for (const TensorInfo& t : file.tensors()) {
        for (const char* mark : foreign)
            if (t.stored_name.find(mark) != std::string::npos)
                throw Error(ErrorCode::model_mismatch, "[" + file.path() + "] '" + t.stored_name +
                                                           "' is of a kind of adapter that is not implemented; plain "
                                                           "LoRAs are");
        for (const Ending& e : endings) {
            const std::string end = e.text;
            if (t.stored_name.size() <= end.size() ||
                t.stored_name.compare(t.stored_name.size() - end.size(), end.size(), end) != 0)
                continue;
            Pair& pair = pairs[t.stored_name.substr(0, t.stored_name.size() - end.size())];
            (e.role == Role::down ? pair.down : e.role == Role::up ? pair.up : pair.alpha) = &t;
            break;
        }
    }
    return pairs;
}

[[noreturn]] void fail(const ModelFile& file, const std::string& what) {
    throw Error(ErrorCode::model_mismatch, "[" + file.path() + "] " + what);
}

void check(const ModelFile& file, const std::string& name, const Pair& pair, const Weights::Matrix& m) {
    if (!pair.down || !pair.up) fail(file, "'" + name + "' has one of its two matrices; the file is not complete");
    for (const TensorInfo* t : {pair.down, pair.up})
        if (!readable(*t)) fail(file, "'" + t->stored_name + "' has the unsupported type " + t->dtype);
    const auto &down = pair.down->shape, &up = pair.up->shape;
    if (down.size() != 2 || up.size() != 2 || down[0] < 1 || down[0] != up[1] || down[1] != m.shape[1] ||
        up[0] != m.shape[0])
        fail(file, "'" + name + "' has the shapes " + spell_shape(down) + " and " + spell_shape(up) +
                       ", which do not fit the model's " + spell_shape(m.shape) + "; it is a LoRA of another model");
}

// What is wrong with a file should not first show in the picture.
void check_finite(const ModelFile& file, const std::vector<const TensorInfo*>& tensors, int threads) {
    parallel_for(
        threads, static_cast<int64_t>(tensors.size()),
        [&](int64_t i) {
            const TensorInfo& t = *tensors[static_cast<size_t>(i)];
            for (float v : to_float(t).data)
                if (!std::isfinite(v)) fail(file, "'" + t.stored_name + "' holds values that are not finite");
        },
        [](int64_t) {});
}

void tell_reference(const ModelFile& file) {
    for (const char* key : {"reference_downscale_factor", "reference_temporal_scale_factor"})
        if (const auto value = file.metadata(key)) {
            log(30, "[lora] " + file.path() + " is an IC-LoRA (" + key + " " + *value +
                        "): it wants a reference video, which no recipe of this version has");
            return;
        }
}

// Rows of all `down` one after the other, (sum of ranks, in).
void stack(const std::vector<Pair>& pairs, ggml_type type, void* to) {
    std::vector<float> all;
    for (const Pair& p : pairs) {
        const Array a = to_float(*p.down);
        all.insert(all.end(), a.data.begin(), a.data.end());
    }
    convert_values(all.data(), GGML_TYPE_F32, to, type, static_cast<int64_t>(all.size()));
}

// Columns of all `up` side by side, (out, sum of ranks), each times its strength.
void join(const std::vector<Pair>& pairs, ggml_type type, void* to) {
    int64_t width = 0;
    for (const Pair& p : pairs) width += p.rank();
    const int64_t rows = pairs.front().up->shape[0];
    std::vector<float> all(static_cast<size_t>(rows * width));
    int64_t at = 0;
    for (const Pair& p : pairs) {
        const Array b = to_float(*p.up);
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t k = 0; k < p.rank(); ++k)
                all[static_cast<size_t>(i * width + at + k)] = p.scale * b.data[static_cast<size_t>(i * p.rank() + k)];
        at += p.rank();
    }
    convert_values(all.data(), GGML_TYPE_F32, to, type, static_cast<int64_t>(all.size()));
}

}  // namespace

Loras::Loras(const std::vector<LoraFile>& files, const Weights& transformer) : files_(files) {
    const std::vector<Weights::Matrix> matrices = transformer.matrices();
    const Modules modules(matrices);
    std::map<const Weights::Matrix*, std::vector<Pair>> found;
    for (const LoraFile& one : files) {
        if (!std::isfinite(one.strength))
            throw Error(ErrorCode::invalid_request, "[lora] the strength of " + one.path + " is not a finite number");
        opened_.push_back(std::make_unique<ModelFiles>(one.path, "a LoRA"));
        const ModelFile& file = *opened_.back()->files().front();
        std::vector<std::string> unknown;
        std::vector<const TensorInfo*> used;
        for (auto& [name, pair] : pairs_of(file)) {
            const Weights::Matrix* m = modules.find(name);
            if (!m) {
                unknown.push_back(name);
                continue;
            }
            check(file, name, pair, *m);
            Pair p = pair;
            p.scale = one.strength;
            if (p.alpha) p.scale *= to_float(*p.alpha).data.at(0) / static_cast<float>(p.rank());
            found[m].push_back(p);
            used.insert(used.end(), {p.down, p.up});
        }
        const size_t applied = used.size() / 2;
        if (!applied)
            fail(file, "none of its " + std::to_string(unknown.size()) + " modules is one of this model's" +
                           (unknown.empty() ? std::string() : ", such as '" + unknown.front() + "'") +
                           "; it is a LoRA of another model");
        check_finite(file, used, transformer.backend().threads());
        log(20, "[lora] " + one.path + ": " + std::to_string(applied) + " of " +
                    std::to_string(applied + unknown.size()) + " modules are applied");
        if (!unknown.empty())
            log(30, "[lora] " + one.path + ": " + std::to_string(unknown.size()) +
                        " modules are none of the transformer's and have no effect, such as '" + unknown.front() + "'");
        tell_reference(file);
    }

    weights_ = std::make_unique<Weights>(*opened_.front(), transformer.backend(), "LoRA", "");
    const ggml_type type = transformer.exact() ? GGML_TYPE_F32 : GGML_TYPE_BF16;
    size_t group = 0;
    for (const Weights::Matrix& m : matrices) {
        for (; group < m.group; ++group) weights_->begin_block();
        if (m.group == 0) weights_->end_blocks();
        const auto it = found.find(&m);
        if (it == found.end()) continue;
        const std::vector<Pair>& pairs = it->second;
        LowRank& branch = branches_[m.tensor];
        int64_t rank = 0;
        for (const Pair& p : pairs) rank += p.rank();
        if (files.size() == 1) {
            const Pair& p = pairs.front();
            branch = {weights_->matrix(p.down->name, p.down->shape), weights_->matrix(p.up->name, p.up->shape),
                      p.scale};
        } else {
            branch.a = weights_->made(m.name + " (A)", type, {m.shape[1], rank},
                                      [pairs, type](void* to) { stack(pairs, type, to); });
            branch.b = weights_->made(m.name + " (B)", type, {rank, m.shape[0]},
                                      [pairs, type](void* to) { join(pairs, type, to); });
        }
    }
    for (size_t blocks = transformer.num_blocks(); group < blocks; ++group) weights_->begin_block();
    check_weights({weights_.get()});
}

}  // namespace sdltx
