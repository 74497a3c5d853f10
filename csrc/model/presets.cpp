#include "presets.h"

#include "base/named.h"
#include "ltxv/version.h"

namespace sdltx {

namespace {

// In the order of the enums.
constexpr const char* schedule_names[] = {"distilled", "ltx2", "given"};
constexpr const char* sampler_kinds[] = {"euler", "gradient_estimation", "euler_ancestral", "res_2s"};
constexpr const char* method_names[] = {"cfg", "cfg_star", "apg"};

// One row for each kind of checkpoint and recipe; scales are cfg, stg, modality, rescale.
constexpr GuidanceScales none{}, of_video{3, 1, 3, 0.7, 0}, of_audio{7, 1, 3, 0.7, 0}, hq_video{3, 0, 3, 0.45, 0},
    hq_audio{7, 0, 3, 1.0, 0};

}  // namespace

const std::vector<Preset>& all_presets() {
    using S = SamplerKind;
    static const std::vector<Preset> presets = {
        // name, family, since, distilled, size, frames, rate, steps, schedule, own tokens, samplers, scales, block
        {"distilled-2.5", "distilled", "2.5", true, 768, 512, 121, 24, 8, Schedule::distilled, false,
         S::euler_ancestral, S::euler, none, none, 28},
        {"distilled", "distilled", "", true, 768, 512, 121, 24, 8, Schedule::distilled, false, S::euler, S::euler, none,
         none, 28},
        {"dev", "dev", "2.3", false, 768, 512, 121, 24, 30, Schedule::ltx2, false, S::euler, S::euler, of_video,
         of_audio, 28},
        {"dev-2.0", "dev", "", false, 768, 512, 121, 24, 40, Schedule::ltx2, false, S::euler, S::euler, of_video,
         of_audio, 29},
        {"hq", "hq", nullptr, false, 960, 544, 121, 24, 15, Schedule::ltx2, true, S::res_2s, S::res_2s, hq_video,
         hq_audio, 28},
    };
    return presets;
}

std::vector<std::string> preset_names() { return names_of(all_presets()); }
const Preset& preset_named(const std::string& name) { return row_named(all_presets(), name, "preset"); }

const Preset& preset_named(const std::string& name, const std::string& version) {
    for (const Preset& p : all_presets())
        if (p.family == name && p.since && is_since(version, p.since)) return p;
    return preset_named(name);
}

const Preset& preset_of(const std::string& version, bool distilled) {
    for (const Preset& p : all_presets())
        if (p.distilled == distilled && p.since && is_since(version, p.since)) return p;
    return all_presets().front();  // never: rows of both kinds fit every version
}

const char* name_of(Schedule schedule) { return schedule_names[static_cast<size_t>(schedule)]; }
const char* name_of(SamplerKind sampler) { return sampler_kinds[static_cast<size_t>(sampler)]; }
const char* name_of(CfgMethod method) { return method_names[static_cast<size_t>(method)]; }
std::vector<std::string> sampler_names() { return {std::begin(sampler_kinds), std::end(sampler_kinds)}; }
std::vector<std::string> guidance_method_names() { return {std::begin(method_names), std::end(method_names)}; }
SamplerKind sampler_named(const std::string& name) {
    return value_named<SamplerKind>(sampler_names(), name, "sampler");
}
CfgMethod guidance_method_named(const std::string& name) {
    return value_named<CfgMethod>(guidance_method_names(), name, "guidance method");
}

const std::string& default_negative_prompt() {
    static const std::string text = SDLTX_NEGATIVE_PROMPT;
    return text;
}

}  // namespace sdltx
