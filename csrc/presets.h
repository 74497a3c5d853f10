// What a clip is made with: what was asked for, what a checkpoint wants, and what comes of both. No ggml.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "export.h"
#include "ltxv/geometry.h"
#include "ltxv/guidance.h"
#include "ltxv/steppers.h"
#include "types.h"

namespace sdltx {

// A request. What is not given is the checkpoint's own.
struct SampleOptions {
    std::optional<int64_t> width, height;        // pixels
    std::optional<int64_t> num_frames;           // 8 k + 1
    std::optional<double> frame_rate;            // frames per second
    std::optional<int64_t> num_inference_steps;  // of the checkpoint's schedule
    std::optional<std::vector<float>> sigmas;    // in place of a schedule
    std::optional<int64_t> seed;                 // 0 to 2^63 - 1
    std::optional<std::string> preset;           // of preset_names(), in place of the one that fits the checkpoint
    std::optional<std::string> sampler;          // of sampler_names()
    std::optional<bool> audio;                   // whether sound is made along with the picture
    // Fields of Guidance, for video and sound.
    std::optional<double> guidance_scale, audio_guidance_scale;      // cfg
    std::optional<double> stg_scale, audio_stg_scale;                // stg
    std::optional<double> modality_scale, audio_modality_scale;      // modality
    std::optional<double> guidance_rescale, audio_guidance_rescale;  // rescale
    std::optional<int64_t> guidance_skip_steps, audio_guidance_skip_steps;
    std::optional<std::vector<int64_t>> stg_blocks;
    std::optional<std::vector<double>> guidance_interval;  // lowest and highest noise level with guidance
    std::optional<std::string> guidance_method;            // of guidance_method_names()
    std::optional<double> apg_eta, apg_threshold;
    std::optional<std::string> recipe;                  // of all_recipes(), in place of the one that fits
    std::vector<std::string> upscalers;                 // files, one after the other: the clip has two stages
    std::vector<LoraFile> loras;                        // of both stages
    std::optional<std::vector<LoraFile>> second_loras;  // of the second stage, in place of `loras`
    std::optional<std::string> distilled_lora;          // the file, for recipes that want it
};

// How the noise levels came about.
enum class Schedule { distilled, ltx2, given };
SDLTX_EXPORT const char* name_of(Schedule schedule);
SDLTX_EXPORT const char* name_of(SamplerKind sampler);

// A request with nothing left open.
struct SampleSettings {
    std::string preset;
    int64_t width, height, num_frames;
    double frame_rate;
    Schedule schedule;
    std::vector<float> sigmas;  // one more than there are steps
    SamplerKind sampler;
    Guidance guidance;
    bool audio;
    int64_t seed;
    Geometry latent;

    int64_t num_inference_steps() const { return static_cast<int64_t>(sigmas.size()) - 1; }
};

// What a kind of checkpoint was made for (sampling.md sections 4 and 6).
struct Preset {
    const char* name;
    const char* versions;  // how the versions of its checkpoints begin; words: of none, on request only
    bool distilled;
    int64_t width, height, num_frames;
    double frame_rate;
    int64_t num_inference_steps;
    Schedule schedule;
    bool own_tokens;  // whether the schedule follows the number of tokens of the clip
    SamplerKind sampler;
    GuidanceScales video, audio;
    int64_t stg_block;  // of the 48 of the releases
};
SDLTX_EXPORT const std::vector<Preset>& all_presets();
// Calls add(name, value) for the scales of one stream, by the names that front ends give them.
template <typename Add>
void for_each_scale(const std::string& prefix, const GuidanceScales& scales, Add& add) {
    add((prefix + "guidance_scale").c_str(), scales.cfg);
    add((prefix + "stg_scale").c_str(), scales.stg);
    add((prefix + "modality_scale").c_str(), scales.modality);
    add((prefix + "guidance_rescale").c_str(), scales.rescale);
}

// Calls add(name, value) for every value of a preset, by the name that front ends give it.
template <typename Add>
void for_each_value(const Preset& p, Add&& add) {
    add("name", p.name);
    add("distilled", p.distilled);
    add("width", p.width);
    add("height", p.height);
    add("num_frames", p.num_frames);
    add("frame_rate", p.frame_rate);
    add("num_inference_steps", p.num_inference_steps);
    add("schedule", name_of(p.schedule));
    add("sampler", name_of(p.sampler));
    for_each_scale("", p.video, add);
    for_each_scale("audio_", p.audio, add);
}

// A way to make a clip (sampling.md section 6; the pipelines of ltx-pipelines), of which all but the values of a row is
// the same.
struct Recipe {
    const char* name;
    const char* purpose;
    bool distilled;      // made for such a checkpoint; others are guided
    const char* preset;  // "": the one that fits the checkpoint
    bool two_stages;
    float first_strength, second_strength;  // of the distilled LoRA in each stage
    bool appends_first_frame;               // a picture at frame 0 is seen as those of other frames are, not held
    bool keeps_first_sound;                 // that of the second stage is not used

    bool wants_distilled_lora() const { return first_strength != 0 || second_strength != 0; }
    // What it cannot do without, besides a model: lines for people.
    SDLTX_EXPORT std::vector<std::string> needs() const;
};
SDLTX_EXPORT const std::vector<Recipe>& all_recipes();
// The one that is asked for, or that fits a request whose values are those of `preset`. Throws Error(invalid_request)
// for one that cannot do what else is asked for.
const Recipe& recipe_of(const SampleOptions& options, const Preset& preset);

// The first of the table that fits; later versions get what the latest known one has.
const Preset& preset_of(const std::string& version, bool distilled);
SDLTX_EXPORT std::vector<std::string> preset_names();
SDLTX_EXPORT std::vector<std::string> recipe_names();
SDLTX_EXPORT std::vector<std::string> sampler_names();
SDLTX_EXPORT std::vector<std::string> guidance_method_names();
SDLTX_EXPORT SamplerKind sampler_named(const std::string& name);  // throws Error(invalid_request)
SDLTX_EXPORT const char* name_of(CfgMethod method);

// Throws Error(invalid_request) for what no checkpoint could do. Needs no model, so call it before one is loaded.
SDLTX_EXPORT void check(const SampleOptions& options);
// Whose values a request has: of the preset or recipe that it names, or of the checkpoint. Throws
// Error(invalid_request).
const Preset& preset_of(const SampleOptions& options, const Preset& fitting);
// One stage. `own`: what the checkpoint's files ask for in place of the preset's values; files that say how many steps
// they want have no guidance but what they ask for. `blocks`: of the transformer. A seed that is not given is drawn.
// Throws Error(invalid_request).
SampleSettings resolve(const SampleOptions& options, const Preset& preset, const SampleOptions& own, int64_t blocks);
// What is possible but probably not meant, a line each: CFG on a distilled checkpoint or steps that it was not made
// for, none on another, a list of sigmas that is another stage's. `told`: whether the files or their names say what the
// checkpoint is.
SDLTX_EXPORT std::vector<std::string> doubts(const SampleSettings& settings, const Preset& fitting, bool own_defaults,
                                             bool told);

// Calls add(name, value) for every option of a clip, by the name that front ends give it, and for `passes`.
template <typename Add>
void for_each_setting(const SampleSettings& s, Add&& add) {
    add("preset", s.preset);
    add("width", s.width);
    add("height", s.height);
    add("num_frames", s.num_frames);
    add("frame_rate", s.frame_rate);
    add("schedule", name_of(s.schedule));
    add("num_inference_steps", s.num_inference_steps());
    add("sigmas", s.sigmas);
    add("seed", s.seed);
    add("sampler", name_of(s.sampler));
    add("audio", s.audio);
    add("passes", s.guidance.passes());
    for (const auto& [prefix, scales] : {std::pair{"", &s.guidance.video}, {"audio_", &s.guidance.audio}}) {
        for_each_scale(prefix, *scales, add);
        add((prefix + std::string("guidance_skip_steps")).c_str(), scales->skip_steps);
    }
    add("stg_blocks", s.guidance.stg_blocks);
    add("guidance_interval", std::vector<double>{s.guidance.lowest, s.guidance.highest});
    add("guidance_method", name_of(s.guidance.method));
    add("apg_eta", s.guidance.apg_eta);
    add("apg_threshold", s.guidance.apg_threshold);
}

// The reference's default negative prompt.
SDLTX_EXPORT const std::string& default_negative_prompt();

}  // namespace sdltx
