// Everything that a request comes to: the steps of a clip, with nothing left open. What runs, what it is estimated to
// take and what people are told of it are projections of this one value. No ggml.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "extension.h"
#include "material.h"
#include "model/parts.h"
#include "recipes.h"
#include "request.h"
#include "settings.h"

namespace sdltx {

enum class StepKind { encode_prompts, encode_pictures, encode_sound, denoise, upscale, decode_pictures, decode_sound };
SDLTX_EXPORT const char* name_of(StepKind kind);

struct Step {
    StepKind kind;
    std::vector<Part> parts{};      // of the model, without which it cannot be
    SampleSettings settings{};      // of the stage that it belongs to
    std::vector<LoraFile> loras{};  // of denoising
    std::string upscaler{};         // the file, of upscaling
    bool keeps_text = false;        // keys of prompts stay between the calls of denoising, as there is room for them
};

struct ClipPlan {
    const Recipe* recipe = nullptr;
    bool asked = false;             // for that recipe, by name
    SampleSettings whole{};         // of the result, with the schedule of the first stage
    bool length_by_prompt = false;  // sizes are those of a clip of the usual length, until the prompt is encoded
    std::string distilled_lora{};   // that is among the LoRAs of the stages; empty: none
    std::vector<Step> steps{};      // in their order
    Task task = Task::text;
    Freedom free{};        // what is made
    bool follows = false;  // films, as references
    ReferenceFactors factors{};
    ExtensionPlan extension{};
    bool enhanced = false;      // the model has written the prompt out
    int64_t result_frames = 0;  // of what comes out, which may end before whole latent frames do

    // The steps of a kind: denoising has one for each stage.
    SDLTX_EXPORT std::vector<const Step*> of(StepKind kind) const;
    SDLTX_EXPORT std::vector<std::string> upscalers() const;
    bool has(StepKind kind) const { return !of(kind).empty(); }
    bool guided() const { return whole.guidance.needs_negative(); }
    // Whether anything is drawn from the seed beside noise that is given.
    SDLTX_EXPORT bool draws_noise(const Request& request) const;
};

// The references of a stage, or of the step that encodes for it; of a dubbing the film, by its size.
std::vector<Request::Reference> references_of(const ClipPlan& plan, const Step& stage, const Request& request);
// What of a reference counts in a stage: numbers of its frames, the size that they get, and its cells. Throws
// Error(invalid_request) for sizes that cannot be.
struct ReferenceShape {
    std::vector<int64_t> frames{};
    int64_t height = 0, width = 0;
    std::array<int64_t, 3> cells{};
};
ReferenceShape shape_of_reference(const ClipPlan& plan, const Step& stage, const Request::Reference& reference);

// The frame of a picture, counted from the start.
int64_t frame_of(const Condition& condition, int64_t num_frames);
// Throws Error(invalid_request) for frames that a clip of so many does not have, or two pictures on one, and for
// strengths that there are not.
void check_frames(const std::vector<Condition>& conditions, int64_t num_frames);
// The pictures of a stage, which may have fewer frames than the clip.
std::vector<Condition> pictures_of_stage(const ClipPlan& plan, const Step& stage, std::vector<Condition> pictures);

// Every option as it runs (duration: only where the length is still open), and schedule, sigmas, passes of the
// transformer, recipe, upscalers, distilled_lora (null: none) and `stages`: such objects for each, with their loras.
SDLTX_EXPORT Json to_json(const ClipPlan& plan);

}  // namespace sdltx
