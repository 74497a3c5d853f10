#include "presets.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>
#include <utility>

#include "error.h"
#include "ltxv/schedule.h"

namespace sdltx {

namespace {

constexpr const char* schedule_names[] = {"distilled", "ltx2", "given"};  // in the order of the enum

constexpr const char* sampler_kinds[] = {"euler", "gradient_estimation", "euler_ancestral", "res_2s"};
constexpr const char* method_names[] = {"cfg", "cfg_star", "apg"};

// One row for each kind of checkpoint and recipe; scales are cfg, stg, modality, rescale.
constexpr GuidanceScales none{}, of_video{3, 1, 3, 0.7, 0}, of_audio{7, 1, 3, 0.7, 0}, hq_video{3, 0, 3, 0.45, 0},
    hq_audio{7, 0, 3, 1.0, 0};
const std::vector<Preset>& table() {
    using S = SamplerKind;
    static const std::vector<Preset> presets = {
        // name       versions  distilled   size    frames rate steps  schedule          own tokens  sampler  scales ...
        {"distilled", "", true, 768, 512, 121, 24, 8, Schedule::distilled, false, S::euler, none, none, 28},
        {"dev-2.0", "2.0", false, 768, 512, 121, 24, 40, Schedule::ltx2, false, S::euler, of_video, of_audio, 29},
        {"dev", "", false, 768, 512, 121, 24, 30, Schedule::ltx2, false, S::euler, of_video, of_audio, 28},
        {"hq", "on request", false, 960, 544, 121, 24, 15, Schedule::ltx2, true, S::res_2s, hq_video, hq_audio, 28},
    };
    return presets;
}

const std::vector<Recipe>& recipe_table() {
    static const std::vector<Recipe> recipes = {
        // name, purpose, distilled, preset, two stages, strengths, appends, keeps sound
        {"distilled", "8 steps of a pass each: the fastest", true, "distilled", false, 0, 0, false, false},
        {"distilled-two-stage", "the same at half the size, then upscaled and refined in 3 steps: fast at large sizes",
         true, "distilled", true, 0, 0, false, false},
        {"guided", "away from a negative prompt and from what goes wrong, up to four passes a step", false, "", false,
         0, 0, false, false},
        {"guided-two-stage", "guided at half the size, then upscaled and refined with the distilled LoRA", false, "",
         true, 0, 1, false, true},
        {"hq", "guided with the second-order sampler and the distilled LoRA in both stages: the finest detail", false,
         "hq", true, 0.25f, 0.5f, false, true},
        {"keyframes", "from picture to picture: guided-two-stage where every picture, the first too, is a keyframe",
         false, "", true, 0, 1, true, false},
    };
    return recipes;
}

template <typename T, size_t N>
T of_name(const std::string& name, const char* const (&names)[N], const char* what) {
    std::string known;
    for (size_t i = 0; i < N; ++i) {
        if (name == names[i]) return static_cast<T>(i);
        known += (known.empty() ? "" : ", ") + std::string(names[i]);
    }
    throw Error(ErrorCode::invalid_request,
                std::string("[sample] there is no ") + what + " '" + name + "'; use one of " + known);
}

std::vector<float> sigmas_of(const Preset& preset, Schedule schedule, int64_t steps, const Geometry& latent) {
    if (schedule == Schedule::distilled) return distilled_sigmas();
    Ltx2Schedule options;
    if (preset.own_tokens) options.tokens = latent.frames * latent.height * latent.width;
    return ltx2_sigmas(steps, options);
}

int64_t random_seed() {
    std::random_device entropy;
    return entropy() & 0x7fffffff;  // short enough to be read out and typed
}

}  // namespace

const char* name_of(Schedule schedule) { return schedule_names[static_cast<size_t>(schedule)]; }

const Preset& preset_of(const std::string& version, bool distilled) {
    for (const Preset& p : table())
        if (p.distilled == distilled && version.rfind(p.versions, 0) == 0) return p;
    return table().front();  // never: rows of both kinds fit every version
}

const std::vector<Preset>& all_presets() { return table(); }
const char* name_of(SamplerKind sampler) { return sampler_kinds[static_cast<size_t>(sampler)]; }
const char* name_of(CfgMethod method) { return method_names[static_cast<size_t>(method)]; }
SamplerKind sampler_named(const std::string& name) { return of_name<SamplerKind>(name, sampler_kinds, "sampler"); }
std::vector<std::string> sampler_names() { return {std::begin(sampler_kinds), std::end(sampler_kinds)}; }
std::vector<std::string> guidance_method_names() { return {std::begin(method_names), std::end(method_names)}; }

std::vector<std::string> preset_names() {
    std::vector<std::string> names;
    for (const Preset& p : table()) names.emplace_back(p.name);
    return names;
}

namespace {

template <typename Row>
const Row& row_named(const std::vector<Row>& rows, const std::string& name, const char* what) {
    std::string known;
    for (const Row& row : rows) {
        if (name == row.name) return row;
        known += (known.empty() ? "" : ", ") + std::string(row.name);
    }
    throw Error(ErrorCode::invalid_request,
                std::string("[sample] there is no ") + what + " '" + name + "'; use one of " + known);
}

const Preset& preset_named(const std::string& name) { return row_named(table(), name, "preset"); }
const Recipe& recipe_named(const std::string& name) { return row_named(recipe_table(), name, "recipe"); }

// What is wrong with a recipe whatever the model is.
void check_recipe(const SampleOptions& o) {
    if (!o.recipe) return;
    const Recipe& r = recipe_named(*o.recipe);
    const auto refuse = [&](const std::string& what) {
        throw Error(ErrorCode::invalid_request, "[recipe] " + std::string(r.name) + " " + what);
    };
    if (o.preset && preset_named(*o.preset).distilled != r.distilled)
        refuse("does not go with the preset " + *o.preset + "; leave one of them out");
    if (!r.two_stages && !o.upscalers.empty())
        refuse("has one stage; leave out the upscaler, or use " + std::string(r.name) + "-two-stage");
    if (!r.two_stages && o.second_loras) refuse("has one stage; leave out the LoRAs of a second");
    if (!r.wants_distilled_lora() && o.distilled_lora)
        refuse("has no use for the distilled LoRA; give it as any other LoRA to use it all the same");
}

}  // namespace

const std::vector<Recipe>& all_recipes() { return recipe_table(); }

std::vector<std::string> recipe_names() {
    std::vector<std::string> names;
    for (const Recipe& r : recipe_table()) names.emplace_back(r.name);
    return names;
}

std::vector<std::string> Recipe::needs() const {
    std::vector<std::string> lines{distilled ? "a distilled checkpoint" : "a checkpoint that is not distilled"};
    if (two_stages) lines.emplace_back("a spatial upscaler");
    if (wants_distilled_lora()) lines.emplace_back("the distilled LoRA of the checkpoint");
    if (appends_first_frame) lines.emplace_back("pictures");
    return lines;
}

const Recipe& recipe_of(const SampleOptions& o, const Preset& preset) {
    const auto fitting = [&]() -> const Recipe& {
        const bool two = !o.upscalers.empty();
        if (preset.distilled) return recipe_named(two ? "distilled-two-stage" : "distilled");
        if (!two) return recipe_named("guided");
        return recipe_named(preset.name == std::string("hq") ? "hq" : "guided-two-stage");
    };
    SampleOptions named = o;
    named.recipe = o.recipe ? *o.recipe : fitting().name;
    check_recipe(named);
    return recipe_named(*named.recipe);
}

const Preset& preset_of(const SampleOptions& o, const Preset& fitting) {
    if (o.preset) return preset_named(*o.preset);
    if (!o.recipe) return fitting;
    const Recipe& r = recipe_named(*o.recipe);
    if (*r.preset) return r.distilled == fitting.distilled && r.distilled ? fitting : preset_named(r.preset);
    return fitting.distilled ? preset_named("dev") : fitting;
}

namespace {

void check_guidance(const SampleOptions& o) {
    const auto range = [](const char* name, const std::optional<double>& value, double least, double most) {
        if (value && !(*value >= least && *value <= most))
            throw Error(ErrorCode::invalid_request, std::string("[sample] ") + name + " " + spell_number(*value) +
                                                        " is out of range; use " + spell_number(least) + " to " +
                                                        spell_number(most));
    };
    constexpr double strongest = 100;
    range("guidance_scale", o.guidance_scale, 0, strongest);
    range("audio_guidance_scale", o.audio_guidance_scale, 0, strongest);
    range("stg_scale", o.stg_scale, 0, strongest);
    range("audio_stg_scale", o.audio_stg_scale, 0, strongest);
    range("modality_scale", o.modality_scale, 0, strongest);
    range("audio_modality_scale", o.audio_modality_scale, 0, strongest);
    range("guidance_rescale", o.guidance_rescale, 0, 1);
    range("audio_guidance_rescale", o.audio_guidance_rescale, 0, 1);
    range("apg_eta", o.apg_eta, -strongest, strongest);
    range("apg_threshold", o.apg_threshold, 0, 1e9);
    for (auto& [name, steps] : {std::pair{"guidance_skip_steps", o.guidance_skip_steps},
                                {"audio_guidance_skip_steps", o.audio_guidance_skip_steps}})
        if (steps && (*steps < 0 || *steps > 1000))
            throw Error(ErrorCode::invalid_request, std::string("[sample] ") + name + " " + std::to_string(*steps) +
                                                        " is out of range; use 0 (none) to 1000");
    if (o.stg_blocks)
        for (int64_t block : *o.stg_blocks)
            if (block < 0)
                throw Error(ErrorCode::invalid_request,
                            "[sample] stg_blocks holds " + std::to_string(block) + "; blocks are counted from 0");
    if (const auto& i = o.guidance_interval)
        if (i->size() != 2 || !((*i)[0] >= 0 && (*i)[0] <= (*i)[1] && (*i)[1] <= 1))
            throw Error(ErrorCode::invalid_request,
                        "[sample] guidance_interval must be two noise levels, the lower first, within 0 and 1");
    if (o.guidance_method) of_name<CfgMethod>(*o.guidance_method, method_names, "guidance method");
    if (o.sampler) sampler_named(*o.sampler);
}

// What a stream of the preset becomes by what is asked for.
GuidanceScales scales_of(const SampleOptions& o, const GuidanceScales& preset, bool video) {
    GuidanceScales s = preset;
    s.cfg = (video ? o.guidance_scale : o.audio_guidance_scale).value_or(s.cfg);
    s.stg = (video ? o.stg_scale : o.audio_stg_scale).value_or(s.stg);
    s.modality = (video ? o.modality_scale : o.audio_modality_scale).value_or(s.modality);
    s.rescale = (video ? o.guidance_rescale : o.audio_guidance_rescale).value_or(s.rescale);
    s.skip_steps = (video ? o.guidance_skip_steps : o.audio_guidance_skip_steps).value_or(s.skip_steps);
    return s;
}

}  // namespace

void check(const SampleOptions& o) {
    if (o.preset) preset_named(*o.preset);
    check_recipe(o);
    check_guidance(o);
    if (constexpr size_t most_upscalers = 4; o.upscalers.size() > most_upscalers)
        throw Error(ErrorCode::invalid_request, "[two-stage] there are " + std::to_string(o.upscalers.size()) +
                                                    " upscalers; at most " + std::to_string(most_upscalers) +
                                                    " can follow each other");
    if (o.seed && *o.seed < 0)
        throw Error(ErrorCode::invalid_request, "[sample] seed " + std::to_string(*o.seed) +
                                                    " is out of range; use 0 to 2^63 - 1, or none for a random one");
    if (o.sigmas) {
        if (o.sigmas->empty()) throw Error(ErrorCode::invalid_request, "[sample] the list of sigmas is empty");
        check_sigmas(*o.sigmas);
        if (o.num_inference_steps && *o.num_inference_steps + 1 != static_cast<int64_t>(o.sigmas->size()))
            throw Error(ErrorCode::invalid_request,
                        "[sample] the list of sigmas and the number of steps contradict each other; give one of them");
    } else if (o.num_inference_steps) {
        ltx2_sigmas(*o.num_inference_steps);
    }
    // What is not given becomes a value that is legal beside the others: a clip of about a second.
    const double rate =
        o.frame_rate.value_or(static_cast<double>(std::clamp<int64_t>(o.num_frames.value_or(1), 1, 1000)));
    const int64_t frames = rate > 0 && rate <= 1000 ? 8 * static_cast<int64_t>(std::ceil(rate / 8)) + 1 : 1;
    latent_geometry(o.width.value_or(32), o.height.value_or(32), o.num_frames.value_or(frames), rate);
}

SampleSettings resolve(const SampleOptions& o, const Preset& fitting, const SampleOptions& own, int64_t blocks) {
    check(o);
    const Preset& preset = preset_of(o, fitting);
    const auto choose = [](const auto& given, const auto& of_files, auto of_preset) {
        return given ? *given : of_files.value_or(of_preset);
    };
    SampleSettings s;
    s.preset = preset.name;
    s.width = choose(o.width, own.width, preset.width);
    s.height = choose(o.height, own.height, preset.height);
    s.num_frames = choose(o.num_frames, own.num_frames, preset.num_frames);
    s.frame_rate = choose(o.frame_rate, own.frame_rate, preset.frame_rate);
    s.latent = latent_geometry(s.width, s.height, s.num_frames, s.frame_rate);
    if (o.sigmas) {
        s.schedule = Schedule::given;
        s.sigmas = *o.sigmas;
    } else {
        // The list of a distilled checkpoint has its length; another number of steps falls back to the formula.
        const int64_t steps =
            choose(o.num_inference_steps, &preset == &fitting ? own.num_inference_steps : std::optional<int64_t>{},
                   preset.num_inference_steps);
        s.schedule = steps == preset.num_inference_steps ? preset.schedule : Schedule::ltx2;
        s.sigmas = sigmas_of(preset, s.schedule, steps, s.latent);
    }
    s.sampler = o.sampler ? sampler_named(*o.sampler) : preset.sampler;
    const bool of_files = &preset == &fitting && own.num_inference_steps;
    s.guidance.video = scales_of(o, scales_of(own, of_files ? none : preset.video, true), true);
    s.guidance.audio = scales_of(o, scales_of(own, of_files ? none : preset.audio, false), false);
    // Of a smaller model the block at about the same depth.
    constexpr int64_t blocks_of_release = 48;
    const std::vector<int64_t> own_block{preset.stg_block * blocks / blocks_of_release};
    for (int64_t block : o.stg_blocks.value_or(own_block)) {
        if (block >= blocks)
            throw Error(ErrorCode::invalid_request, "[sample] stg_blocks holds " + std::to_string(block) +
                                                        "; the model has blocks 0 to " + std::to_string(blocks - 1));
        s.guidance.stg_blocks.push_back(static_cast<int>(block));
    }
    if (o.guidance_interval) {
        s.guidance.lowest = (*o.guidance_interval)[0];
        s.guidance.highest = (*o.guidance_interval)[1];
    }
    if (o.guidance_method) s.guidance.method = of_name<CfgMethod>(*o.guidance_method, method_names, "guidance method");
    s.guidance.apg_eta = o.apg_eta.value_or(s.guidance.apg_eta);
    s.guidance.apg_threshold = o.apg_threshold.value_or(s.guidance.apg_threshold);
    s.audio = o.audio.value_or(true);
    if (!s.audio) {  // nothing to guide, or to be isolated from
        s.guidance.audio = none;
        s.guidance.video.modality = 1;
    }
    s.seed = o.seed ? *o.seed : random_seed();
    return s;
}

std::vector<std::string> doubts(const SampleSettings& s, const Preset& fitting, bool own_defaults, bool told) {
    const Guidance& g = s.guidance;
    const bool cfg = g.needs_negative(), any = cfg || g.needs_perturbed() || g.needs_isolated();
    std::vector<std::string> lines;
    if (!told && !fitting.distilled && !own_defaults && any && s.preset == fitting.name)
        lines.push_back(
            "[sample] nothing tells whether this checkpoint is distilled; it counts as not, and is guided. If "
            "it is, choose the preset distilled");
    if ((fitting.distilled || preset_named(s.preset).distilled) && cfg)
        lines.push_back(
            "[sample] a distilled checkpoint needs no CFG; it costs a pass more per step and burns colours");
    if (!fitting.distilled && !own_defaults && !any && s.preset != table().front().name)
        lines.push_back("[sample] a checkpoint that is not distilled gives poor pictures without guidance");
    if (s.schedule == Schedule::given && s.sigmas == distilled_stage_2_sigmas())
        lines.push_back("[sample] these sigmas refine an upscaled clip; from pure noise they leave most of it undone");
    if (fitting.distilled && !own_defaults && s.schedule != Schedule::given &&
        s.num_inference_steps() != fitting.num_inference_steps)
        lines.push_back("[sample] a distilled checkpoint was made for " + std::to_string(fitting.num_inference_steps) +
                        " steps of its own; others are worse");
    return lines;
}

const std::string& default_negative_prompt() {
    static const std::string text = SDLTX_NEGATIVE_PROMPT;
    return text;
}

}  // namespace sdltx
