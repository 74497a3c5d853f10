// How a clip is made out of denoiser, steppers and conditioning (sampling.md section 6).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ltxv/conditioning.h"
#include "ltxv/config.h"
#include "ltxv/sampler.h"
#include "presets.h"

namespace sdltx {

// Start noise in the shapes of Latents; what is empty is drawn from the seed.
struct Noise {
    Array video, audio;
};

// What a stage starts from.
struct Start {
    Noise noise;
    Latents initial;  // what is refined, in the shapes of the result; parts that are empty begin as nothing
    std::vector<Keyframe> keyframes;
    bool appends_first_frame = false;  // see Recipe
    std::shared_ptr<Loras> loras;      // null for none
};

// One stage: noise at the first level, then the steps of the schedule. A keyframe at frame 0 is what the clip begins
// with, others are appended. The contexts must outlive the loop; `negative` may be null without CFG. Throws
// Error(invalid_request) for contexts, noise, latents and keyframes of other shapes.
std::unique_ptr<Sampler> one_stage(Transformer& transformer, Workspace& workspace, const AudioLatentConfig& audio,
                                   const Context& context, const Context* negative, const SampleSettings& settings,
                                   const Start& from, Trace* trace);

// Everything that a request comes to.
struct ClipPlan {
    struct Stage {
        SampleSettings settings;
        std::vector<LoraFile> loras;
    };
    const Recipe* recipe;
    bool asked;                          // for that recipe, by name
    SampleSettings whole;                // of the result, with the schedule of the first stage
    std::vector<Stage> stages;           // one or two
    std::vector<std::string> upscalers;  // between them
    std::string distilled_lora;          // that is among the LoRAs of the stages; empty: none

    // Whether anything is drawn from the seed beside noise that is given.
    SDLTX_EXPORT bool draws_noise(const Noise& given, const std::vector<Condition>& conditions) const;
};

// What upscalers do to the size of a clip.
struct UpscaleFactor {
    int64_t numerator = 1, denominator = 1;  // of both sides
    int64_t frames = 1;                      // how many times as many there are, but for the first
};
// The requests of a clip in two stages and of each of them: the first is guided and scheduled as a clip of its own, and
// `alone`, what such a clip would be, has the sizes that are not given; the second takes the released three steps
// without guidance. Throws Error(invalid_request) for a size that the factor cannot bring forth.
struct TwoRequests {
    SampleOptions whole, first, second;
};
TwoRequests two_stages(const SampleOptions& options, const SampleSettings& alone, const UpscaleFactor& factor);

// Whether the name of a LoRA's file tells that it makes a distilled checkpoint of one that is not.
bool is_distilled_lora(const std::string& path);
// The LoRAs of a stage: those that are asked for, and the distilled one at its strength unless it is among them.
std::vector<LoraFile> loras_of_stage(std::vector<LoraFile> asked, const std::string& distilled_lora, float strength);

// The frame of a picture, counted from the start.
int64_t frame_of(const Condition& condition, int64_t num_frames);
// Throws Error(invalid_request) for frames that a clip of so many does not have, or two pictures on one, and for
// strengths that there are not.
void check_frames(const std::vector<Condition>& conditions, int64_t num_frames);

// Where a stage stands, as latents.
Latents latents_of(const SampleState& state, const AudioLatentConfig& audio, const SampleSettings& settings);

}  // namespace sdltx
