// The ways to make a clip: which there are, which one a request asks for, and what each of its stages is asked for.
#pragma once

#include <string>
#include <vector>

#include "model/presets.h"
#include "options.h"
#include "settings.h"

namespace sdltx {

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
SDLTX_EXPORT std::vector<std::string> recipe_names();
// What is wrong with the recipe that is asked for, whatever the model is. Throws Error(invalid_request).
void check_recipe(const ClipOptions& options);
// The one that is asked for, or that fits a request whose values are those of `preset`. Throws Error(invalid_request)
// for one that cannot do what else is asked for.
const Recipe& recipe_of(const ClipOptions& options, const Preset& preset);
// Whose values a request has: of the preset or recipe that it names, or of the checkpoint, whose preset `fitting` is.
// Throws Error(invalid_request).
const Preset& preset_of(const ClipOptions& options, const Preset& fitting, const std::string& version);

// What upscalers do to the size of a clip.
struct UpscaleFactor {
    int64_t numerator = 1, denominator = 1;  // of both sides
    int64_t frames = 1;                      // how many times as many there are, but for the first
};
// The requests of a clip in two stages and of each of them: the first is guided and scheduled as a clip of its own, and
// `alone`, what such a clip would be, has the sizes that are not given; the second takes the released three steps
// without guidance. Throws Error(invalid_request) for a size that the factor cannot bring forth.
struct TwoRequests {
    ClipOptions whole, first, second;
};
TwoRequests two_stages(const ClipOptions& options, const SampleSettings& alone, const UpscaleFactor& factor);

// Whether the name of a LoRA's file tells that it makes a distilled checkpoint of one that is not.
bool is_distilled_lora(const std::string& path);
// The LoRAs of a stage: those that are asked for, and the distilled one at its strength unless it is among them.
std::vector<LoraFile> loras_of_stage(std::vector<LoraFile> asked, const std::string& distilled_lora, float strength);

}  // namespace sdltx
