#include "settings.h"

#include <random>

#include "base/error.h"
#include "ltxv/conditioning.h"
#include "ltxv/schedule.h"
#include "recipes.h"

namespace sdltx {

namespace {

constexpr GuidanceScales none{};

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

// What a stream of the preset becomes by what is asked for.
GuidanceScales scales_of(const ClipOptions& o, const GuidanceScales& preset, bool video) {
    GuidanceScales s = preset;
    s.cfg = (video ? o.guidance_scale : o.audio_guidance_scale).value_or(s.cfg);
    s.stg = (video ? o.stg_scale : o.audio_stg_scale).value_or(s.stg);
    s.modality = (video ? o.modality_scale : o.audio_modality_scale).value_or(s.modality);
    s.rescale = (video ? o.guidance_rescale : o.audio_guidance_rescale).value_or(s.rescale);
    s.skip_steps = (video ? o.guidance_skip_steps : o.audio_guidance_skip_steps).value_or(s.skip_steps);
    return s;
}

}  // namespace

SampleSettings resolve(const ClipOptions& o, const Preset& fitting, const FileDefaults& own, const std::string& version,
                       int64_t blocks) {
    check(o);
    const Preset& preset = preset_of(o, fitting, version);
    const auto choose = [](const auto& given, const auto& of_files, auto of_preset) {
        return given ? *given : of_files.value_or(of_preset);
    };
    SampleSettings s;
    s.preset = preset.name;
    s.width = choose(o.width, own.width, preset.width);
    s.height = choose(o.height, own.height, preset.height);
    s.num_frames = choose(o.num_frames, own.num_frames, preset.num_frames);
    s.frame_rate = choose(o.frame_rate, own.frame_rate, preset.frame_rate);
    constexpr double usual = 5;  // seconds, where nothing is known yet
    if (const auto duration = duration_of(o))
        s.num_frames = frames_nearest(duration->by_prompt ? usual : duration->seconds, s.frame_rate);
    s.latent = latent_geometry(s.width, s.height, s.num_frames, s.frame_rate);
    if (o.sigmas) {
        s.schedule = Schedule::given;
        s.sigmas.assign(o.sigmas->begin(), o.sigmas->end());
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
    GuidanceScales video = of_files ? none : preset.video, audio = of_files ? none : preset.audio;
    video.cfg = own.guidance_scale.value_or(video.cfg);
    audio.cfg = own.audio_guidance_scale.value_or(audio.cfg);
    s.guidance.video = scales_of(o, video, true);
    s.guidance.audio = scales_of(o, audio, false);
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
    if (o.guidance_method) s.guidance.method = guidance_method_named(*o.guidance_method);
    s.guidance.apg_eta = o.apg_eta.value_or(s.guidance.apg_eta);
    s.guidance.apg_threshold = o.apg_threshold.value_or(s.guidance.apg_threshold);
    s.audio = o.audio.value_or(true);
    s.video = o.video.value_or(true);
    if (!s.audio) {  // nothing to guide, or to be isolated from
        s.guidance.audio = none;
        s.guidance.video.modality = 1;
    }
    if (!s.video) {
        s.guidance.video = none;
        s.guidance.audio.modality = 1;
    }
    s.slots = slot_frames(o.num_generated_keyframes.value_or(0), s.num_frames);
    s.seed = o.seed.value_or(-1) >= 0 ? *o.seed : random_seed();
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
    if (!fitting.distilled && !own_defaults && !any && !preset_named(s.preset).distilled)
        lines.push_back("[sample] a checkpoint that is not distilled gives poor pictures without guidance");
    if (s.schedule == Schedule::given && s.sigmas == distilled_stage_2_sigmas())
        lines.push_back("[sample] these sigmas refine an upscaled clip; from pure noise they leave most of it undone");
    if (fitting.distilled && !own_defaults && s.schedule != Schedule::given &&
        s.num_inference_steps() != fitting.num_inference_steps)
        lines.push_back("[sample] a distilled checkpoint was made for " + std::to_string(fitting.num_inference_steps) +
                        " steps of its own; others are worse");
    return lines;
}

}  // namespace sdltx
