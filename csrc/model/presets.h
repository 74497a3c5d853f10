// What a kind of checkpoint was made for: the one table of defaults. No ggml.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/export.h"
#include "ltxv/guidance.h"
#include "ltxv/steppers.h"

namespace sdltx {

// How the noise levels come about.
enum class Schedule { distilled, ltx2, given };
SDLTX_EXPORT const char* name_of(Schedule schedule);
SDLTX_EXPORT const char* name_of(SamplerKind sampler);
SDLTX_EXPORT const char* name_of(CfgMethod method);
SDLTX_EXPORT std::vector<std::string> sampler_names();
SDLTX_EXPORT std::vector<std::string> guidance_method_names();
SDLTX_EXPORT SamplerKind sampler_named(const std::string& name);  // throws Error(invalid_request)
CfgMethod guidance_method_named(const std::string& name);         // throws Error(invalid_request)

// sampling.md sections 4 and 6.
struct Preset {
    const char* name;
    const char* family;  // a preset of this name: the one of the family that fits a checkpoint
    const char* since;   // the first version of its checkpoints; null: of none, on request only
    bool distilled;
    int64_t width, height, num_frames;
    double frame_rate;
    int64_t num_inference_steps;
    Schedule schedule;
    bool own_tokens;                      // whether the schedule follows the number of tokens of the clip
    SamplerKind sampler, second_sampler;  // of the only or first stage, of the second
    GuidanceScales video, audio;
    int64_t stg_block;  // of the 48 of the releases
};
SDLTX_EXPORT const std::vector<Preset>& all_presets();
SDLTX_EXPORT std::vector<std::string> preset_names();
const Preset& preset_named(const std::string& name);  // throws Error(invalid_request)
// The same for a checkpoint of this version: the name of a family stands for what fits.
const Preset& preset_named(const std::string& name, const std::string& version);
// The first of the table that fits; later versions get what the latest known one has.
const Preset& preset_of(const std::string& version, bool distilled);

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

// What the files of a checkpoint ask for in place of its preset's values.
struct FileDefaults {
    std::optional<int64_t> width, height, num_frames, num_inference_steps;
    std::optional<double> frame_rate, guidance_scale, audio_guidance_scale;
};

// The reference's default negative prompt.
SDLTX_EXPORT const std::string& default_negative_prompt();

}  // namespace sdltx
