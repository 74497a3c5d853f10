#include "plan.h"

#include <algorithm>
#include <set>

#include "base/error.h"

namespace sdltx {

namespace {

constexpr const char* step_names[] = {"encode prompts", "encode pictures", "encode sound", "denoise",
                                      "upscale",        "decode pictures", "decode sound"};  // in the order of the enum

Json json_of(const SampleSettings& s) {
    Json out = {{"preset", s.preset},
                {"width", s.width},
                {"height", s.height},
                {"num_frames", s.num_frames},
                {"frame_rate", s.frame_rate},
                {"schedule", name_of(s.schedule)},
                {"num_inference_steps", s.num_inference_steps()},
                {"sigmas", s.sigmas},
                {"seed", s.seed},
                {"sampler", name_of(s.sampler)},
                {"audio", s.audio},
                {"video", s.video},
                {"passes", s.guidance.passes()},
                {"guidance_skip_steps", s.guidance.video.skip_steps},
                {"audio_guidance_skip_steps", s.guidance.audio.skip_steps},
                {"stg_blocks", s.guidance.stg_blocks},
                {"guidance_interval", {s.guidance.lowest, s.guidance.highest}},
                {"guidance_method", name_of(s.guidance.method)},
                {"num_generated_keyframes", s.slots.size()},
                {"apg_eta", s.guidance.apg_eta},
                {"apg_threshold", s.guidance.apg_threshold}};
    const auto add = [&](const char* name, double value) { out[name] = value; };
    for_each_scale("", s.guidance.video, add);
    for_each_scale("audio_", s.guidance.audio, add);
    return out;
}

}  // namespace

const char* name_of(StepKind kind) { return step_names[static_cast<size_t>(kind)]; }

std::vector<const Step*> ClipPlan::of(StepKind kind) const {
    std::vector<const Step*> found;
    for (const Step& step : steps)
        if (step.kind == kind) found.push_back(&step);
    return found;
}

std::vector<std::string> ClipPlan::upscalers() const {
    std::vector<std::string> files;
    for (const Step* step : of(StepKind::upscale)) files.push_back(step->upscaler);
    return files;
}

bool ClipPlan::draws_noise(const Request& request) const {
    const SampleSettings& s = of(StepKind::denoise).front()->settings;
    const bool appends = std::any_of(request.images.begin(), request.images.end(), [&](const Condition& c) {
        return recipe->appends_first_frame || frame_of(c, s.num_frames) != 0;
    });
    const bool steps_draw = s.sampler != SamplerKind::euler && s.sampler != SamplerKind::gradient_estimation;
    const Noise& given = request.noise;
    return of(StepKind::denoise).size() > 1 || given.video.empty() || (s.audio && given.audio.empty()) || appends ||
           steps_draw || !s.slots.empty();
}

int64_t frame_of(const Condition& c, int64_t num_frames) { return c.frame < 0 ? num_frames + c.frame : c.frame; }

void check_frames(const std::vector<Condition>& conditions, int64_t num_frames) {
    std::set<int64_t> frames;
    for (const Condition& c : conditions) {
        const int64_t frame = frame_of(c, num_frames);
        if (frame < 0 || frame >= num_frames)
            throw Error(ErrorCode::invalid_request, "[image] there is no frame " + std::to_string(c.frame) +
                                                        " in a clip of " + std::to_string(num_frames) + "; use 0 to " +
                                                        std::to_string(num_frames - 1) + ", or -1 for the last one");
        if (!(c.strength >= 0 && c.strength <= 1))
            throw Error(ErrorCode::invalid_request, "[image] a strength must be between 0 and 1");
        if (!frames.insert(frame).second)
            throw Error(ErrorCode::invalid_request, "[image] two pictures are for frame " + std::to_string(frame) +
                                                        "; give each a frame of its own");
    }
}

// Frames of the clip are others of a stage that has fewer.
std::vector<Condition> pictures_of_stage(const ClipPlan& plan, const Step& stage, std::vector<Condition> pictures) {
    const int64_t frames = plan.whole.num_frames, own = stage.settings.num_frames;
    for (Condition& c : pictures)
        c.frame = frame_of(c, frames) / std::max<int64_t>(1, (frames - 1) / std::max<int64_t>(1, own - 1));
    return pictures;
}

Json to_json(const ClipPlan& plan) {
    Json out = json_of(plan.whole), stages = Json::array();
    for (const Step* stage : plan.of(StepKind::denoise)) {
        Json loras = Json::array();
        for (const LoraFile& f : stage->loras) loras.push_back({f.path, f.strength});
        stages.push_back(json_of(stage->settings));
        stages.back()["loras"] = std::move(loras);
    }
    if (plan.length_by_prompt) out["duration"] = "auto";
    out["recipe"] = plan.recipe->name;
    out["task"] = name_of(plan.task);
    out["result_frames"] = plan.result_frames;
    out["upscalers"] = plan.upscalers();
    out["distilled_lora"] = plan.distilled_lora.empty() ? Json() : Json(plan.distilled_lora);
    out["stages"] = std::move(stages);
    return out;
}

}  // namespace sdltx
