// One stage of a clip, made out of denoiser, steppers and conditioning (sampling.md section 6).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ltxv/conditioning.h"
#include "ltxv/config.h"
#include "ltxv/sampler.h"
#include "recipes.h"
#include "settings.h"

namespace sdltx {

// What one stream of a stage starts from (conditioning.md section 1; the reference's ModalitySpec).
struct Spec {
    Array noise;                       // in the shape of the result; empty: drawn from the seed
    Array initial;                     // what is refined, in that shape; empty: nothing
    std::vector<Keyframe> keyframes;   // of pictures
    bool appends_first_frame = false;  // see Recipe
    bool frozen = false;               // stays what it is, for the other stream to look at
    Array slots{};                     // what pictures of settings.slots are made from, (C, K, H', W'); empty: nothing
    std::vector<Kept> kept{};          // before pictures
    std::vector<ReferenceFilm> references{};  // after them
    Array sound_before{};                     // sound of another time (C, R, mel)
};
struct Start {
    Spec video, audio;
    std::shared_ptr<Loras> loras;  // null for none
    DrawNoise draw{};              // noise of steps; null: from the seed
    bool keeps_text = false;       // see TransformerRun
};

// What a stage starts from, but for the noise: what is given, then kept spans, pictures, references, and slots. A
// keyframe at frame 0 is what the clip begins with, others are appended. Throws Error(invalid_request) for latents of
// other shapes.
SampleState start_of(const TransformerConfig& transformer, const AudioLatentConfig& audio,
                     const SampleSettings& settings, const Start& from);

// One stage: noise at the first level, then the steps of the schedule. The contexts must outlive the loop; `negative`
// may be null without CFG. Throws Error(invalid_request) also for contexts and noise of other shapes.
std::unique_ptr<Sampler> one_stage(Transformer& transformer, Workspace& workspace, const AudioLatentConfig& audio,
                                   const Context& context, const Context* negative, const SampleSettings& settings,
                                   const Start& from, Trace* trace);

// For transformers that do not know pictures that are made beside a clip. Throws Error(model_mismatch).
[[noreturn]] void refuse_slots();

// Where a stage stands, as latents; with the pictures that are made beside the clip.
Latents latents_of(const SampleState& state, const AudioLatentConfig& audio, const SampleSettings& settings);

}  // namespace sdltx
