// How a clip is made out of denoiser, steppers and conditioning (sampling.md section 6).
#pragma once

#include <memory>
#include <string>
#include <utility>
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
    std::shared_ptr<Loras> loras;  // null for none
};

// One stage: noise at the first level, then the steps of the schedule. A keyframe at frame 0 is what the clip begins
// with, others are appended. The contexts must outlive the loop; `negative` may be null without CFG. Throws
// Error(invalid_request) for contexts, noise, latents and keyframes of other shapes.
std::unique_ptr<Sampler> one_stage(Transformer& transformer, Workspace& workspace, const AudioLatentConfig& audio,
                                   const Context& context, const Context* negative, const SampleSettings& settings,
                                   const Start& from, Trace* trace);
// A clip in two stages: one that is smaller or has fewer frames, then an upscaled one that is refined.
struct TwoStages {
    SampleSettings whole;  // of the clip, with the schedule of the first stage
    SampleSettings first, second;
    std::vector<std::string> upscalers;  // files, one after the other
    bool keeps_first_sound;              // the second stage's is not as good
};
// What upscalers do to the size of a clip.
struct UpscaleFactor {
    int64_t numerator = 1, denominator = 1;  // of both sides
    int64_t frames = 1;                      // how many times as many there are, but for the first
};
// The requests of both stages of `whole`: the first is guided and scheduled as a clip of its own, the second takes the
// released three steps without guidance. Throws Error(invalid_request) for a size that the factor cannot bring forth.
std::pair<SampleOptions, SampleOptions> two_stages(const SampleOptions& options, const SampleSettings& whole,
                                                   const UpscaleFactor& factor);

// Where a stage stands, as latents.
Latents latents_of(const SampleState& state, const AudioLatentConfig& audio, const SampleSettings& settings);

}  // namespace sdltx
