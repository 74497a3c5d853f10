#include "quantisation.h"

#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace sdltx {

namespace {

constexpr ggml_type as_stored = GGML_TYPE_COUNT;

constexpr Mix mixes[] = {
    {"keep", as_stored, as_stored, 0},
    {"f32", GGML_TYPE_F32, GGML_TYPE_F32, 0},
    {"f16", GGML_TYPE_F16, GGML_TYPE_F16, 1},
    {"bf16", GGML_TYPE_BF16, GGML_TYPE_BF16, 32},
    {"q8_0", GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, 7},
    {"q6_k", GGML_TYPE_Q6_K, GGML_TYPE_Q6_K, 18},
    {"q5_k_m", GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, 17},
    {"q5_k_s", GGML_TYPE_Q5_K, GGML_TYPE_Q5_K, 16},
    {"q5_1", GGML_TYPE_Q5_1, GGML_TYPE_Q5_1, 9},
    {"q5_0", GGML_TYPE_Q5_0, GGML_TYPE_Q5_0, 8},
    {"q4_k_m", GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, 15},
    {"q4_k_s", GGML_TYPE_Q4_K, GGML_TYPE_Q4_K, 14},
    {"q4_1", GGML_TYPE_Q4_1, GGML_TYPE_Q4_1, 3},
    {"q4_0", GGML_TYPE_Q4_0, GGML_TYPE_Q4_0, 2},
    {"iq4_nl", GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_NL, 25},
    {"iq4_xs", GGML_TYPE_IQ4_XS, GGML_TYPE_IQ4_XS, 30},
    {"mxfp4", GGML_TYPE_MXFP4, GGML_TYPE_MXFP4, 38},
    {"nvfp4", GGML_TYPE_NVFP4, GGML_TYPE_NVFP4, 39},
    {"q3_k_m", GGML_TYPE_Q3_K, GGML_TYPE_Q5_K, 12},
    {"q3_k_s", GGML_TYPE_Q3_K, GGML_TYPE_Q3_K, 11},
    {"iq3_s", GGML_TYPE_IQ3_S, GGML_TYPE_IQ3_S, 26},
    {"iq3_xxs", GGML_TYPE_IQ3_XXS, GGML_TYPE_IQ3_XXS, 23},
    {"q2_k", GGML_TYPE_Q2_K, GGML_TYPE_Q4_K, 10},
    {"iq2_s", GGML_TYPE_IQ2_S, GGML_TYPE_IQ2_S, 28},
    {"iq2_xs", GGML_TYPE_IQ2_XS, GGML_TYPE_IQ2_XS, 20},
    {"iq2_xxs", GGML_TYPE_IQ2_XXS, GGML_TYPE_IQ2_XXS, 19},
};

// What becomes of tensors of a network by their names; the first that fits. Small or sensitive weights cost
// little and keep their precision; vectors and tables are F32 whatever they are called.
enum class Treatment {
    exact,   // F32
    half,    // BF16, or what is asked for if that is no quantisation
    eight,   // Q8_0 at most: run once per prompt, and every step depends on what they say
    matrix,  // the type of the mix
};
struct Class {
    const char* pattern;
    Treatment treatment;
};
constexpr Class classes[] = {
    {"*scale_shift_table*", Treatment::exact},
    {"*_norm.weight", Treatment::exact},
    {"*.bias", Treatment::exact},
    {"keyframes_abs_pos_embedding", Treatment::exact},
    {"*learnable_registers", Treatment::exact},  // parameters that are no linear layers; others read those as F32 only
    {"*.to_gate_logits.weight", Treatment::half},
    {"*_embeddings_connector.transformer_1d_blocks.*.weight", Treatment::eight},
    {"transformer_blocks.*.weight", Treatment::matrix},
    {"*", Treatment::half},  // timestep and modulation linears, patchify, proj_out
};

constexpr Class classes_of_text[] = {
    {"embed_tokens.weight", Treatment::eight},
    {"*norm.weight", Treatment::exact},
    {"layers.*.weight", Treatment::matrix},
    {"*", Treatment::exact},  // scalars of layers
};

// Networks whose matrices are quantised. `sensitive`: of the large ones those whose errors reach furthest; a third of
// them, and all at either end of the network.
struct Kind {
    std::string_view prefix, before_block;
    const Class *begin, *end;
    std::array<const char*, 2> sensitive;
};
const Kind kinds[] = {
    {"model.diffusion_model.",
     "transformer_blocks.",
     std::begin(classes),
     std::end(classes),
     {"*.to_v.weight", "*.net.2.weight"}},
    {"language_model.model.",
     "layers.",
     std::begin(classes_of_text),
     std::end(classes_of_text),
     {"*.v_proj.weight", "*.down_proj.weight"}},
};

bool fits(const char* pattern, const std::string& name) { return ::fnmatch(pattern, name.c_str(), 0) == 0; }

// What holds a row that is no whole number of blocks of `type`.
ggml_type that_divides(ggml_type type, int64_t row) {
    const auto whole = [&](ggml_type t) { return row % ggml_blck_size(t) == 0; };
    if (whole(type)) return type;
    const ggml_type smaller_blocks = type == GGML_TYPE_Q6_K   ? GGML_TYPE_Q8_0
                                     : type == GGML_TYPE_Q5_K ? GGML_TYPE_Q5_1
                                     : type == GGML_TYPE_Q4_K ? GGML_TYPE_Q5_0
                                                              : GGML_TYPE_IQ4_NL;
    return whole(smaller_blocks) ? smaller_blocks : GGML_TYPE_BF16;
}

ggml_type type_named(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        std::string known = ggml_type_name(type) ? ggml_type_name(type) : "";
        std::transform(known.begin(), known.end(), known.begin(), [](unsigned char c) { return std::tolower(c); });
        const bool offered = std::any_of(std::begin(mixes), std::end(mixes),
                                         [&](const Mix& m) { return m.base == type || m.more == type; });
        if (offered && known == name) return type;
    }
    throw Error(ErrorCode::invalid_request,
                "[convert] there is no type '" + name + "' for a tensor; use one such as f32, bf16, q8_0, q4_k");
}

int64_t block_of(const std::string& name, std::string_view before) {
    return name.rfind(before, 0) == 0 ? std::atoll(name.c_str() + before.size()) : -1;
}

}  // namespace

const Mix& mix_of(const std::string& name) {
    std::string names;
    for (auto& m : mixes) {
        if (name == m.name) return m;
        names += (names.empty() ? "" : ", ") + std::string(m.name);
    }
    throw Error(ErrorCode::invalid_request, "[convert] type '" + name + "' is unknown; use one of " + names);
}

std::vector<std::string> mix_names() {
    std::vector<std::string> names;
    for (auto& m : mixes) names.push_back(m.name);
    return names;
}

Quantisation::Quantisation(const Mix& mix, const std::vector<TypeRule>& rules,
                           const std::vector<const TensorInfo*>& tensors)
    : mix_(mix), blocks_(std::size(kinds)) {
    for (const TensorInfo* t : tensors)
        for (size_t k = 0; k < std::size(kinds); ++k)
            if (t->name.rfind(kinds[k].prefix, 0) == 0)
                blocks_[k] =
                    std::max(blocks_[k], block_of(t->name.substr(kinds[k].prefix.size()), kinds[k].before_block) + 1);
    for (auto& [pattern, type] : rules) rules_.push_back({pattern, type_named(type)});
}

ggml_type Quantisation::wanted(const TensorInfo& t) const {
    const ggml_type stored = t.type < GGML_TYPE_COUNT ? t.type : GGML_TYPE_BF16;
    const Kind* kind =
        std::find_if(std::begin(kinds), std::end(kinds), [&](const Kind& k) { return t.name.rfind(k.prefix, 0) == 0; });
    if (kind == std::end(kinds)) return stored;
    const std::string name = t.name.substr(kind->prefix.size());
    // Rows of one, or a single row, are vectors.
    const bool matrix = std::count_if(t.shape.begin(), t.shape.end(), [](int64_t n) { return n > 1; }) >= 2;
    for (const Rule& rule : rules_)
        if (matrix && (fits(rule.pattern.c_str(), name) || fits(rule.pattern.c_str(), t.name))) {
            rule.used = true;
            return rule.type;
        }
    if (mix_.base == as_stored) return stored;
    const Class* found = std::find_if(kind->begin, kind->end, [&](const Class& c) { return fits(c.pattern, name); });
    const Treatment treatment = matrix ? found->treatment : Treatment::exact;
    const bool quantising = ggml_is_quantized(mix_.base);
    if (treatment == Treatment::exact) return GGML_TYPE_F32;
    if (!quantising) return mix_.base;
    if (treatment == Treatment::half) return GGML_TYPE_BF16;
    if (treatment == Treatment::eight) return GGML_TYPE_Q8_0;
    const bool suffers = std::any_of(kind->sensitive.begin(), kind->sensitive.end(),
                                     [&](const char* pattern) { return fits(pattern, name); });
    const int64_t i = block_of(name, kind->before_block), blocks = blocks_[static_cast<size_t>(kind - kinds)];
    const bool chosen = i < blocks / 8 || i >= blocks - blocks / 8 || (i - blocks / 8) % 3 == 2;
    return suffers && chosen ? mix_.more : mix_.base;
}

ggml_type Quantisation::type_of(const TensorInfo& t) const {
    return that_divides(wanted(t), t.shape.empty() ? 1 : t.shape.back());
}

std::vector<std::string> Quantisation::unused_rules() const {
    std::vector<std::string> patterns;
    for (const Rule& rule : rules_)
        if (!rule.used) patterns.push_back(rule.pattern);
    return patterns;
}

}  // namespace sdltx
