// How a clip is made out of denoiser, steppers and conditioning (sampling.md section 6).
#pragma once

#include <memory>

#include "ltxv/conditioning.h"
#include "ltxv/config.h"
#include "ltxv/sampler.h"
#include "presets.h"

namespace sdltx {

// Start noise in the shapes of Latents; what is empty is drawn from the seed.
struct Noise {
    Array video, audio;
};

// One stage: noise at the first level, then the steps of the schedule. A keyframe at frame 0 is what the clip begins
// with, others are appended. The contexts must outlive the loop; `negative` may be null without CFG. Throws
// Error(invalid_request) for contexts, noise and keyframes of other shapes.
std::unique_ptr<Sampler> one_stage(Transformer& transformer, Workspace& workspace, const AudioLatentConfig& audio,
                                   const Context& context, const Context* negative, const SampleSettings& settings,
                                   const Noise& noise, const std::vector<Keyframe>& keyframes, Trace* trace);
// Where a stage stands, as latents.
Latents latents_of(const SampleState& state, const AudioLatentConfig& audio, const SampleSettings& settings);

}  // namespace sdltx
