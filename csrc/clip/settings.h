// What a request comes to: one stage with nothing left open, and what of it is probably not meant. No ggml.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ltxv/geometry.h"
#include "ltxv/guidance.h"
#include "ltxv/steppers.h"
#include "model/presets.h"
#include "options.h"

namespace sdltx {

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
    std::vector<int64_t> slots{};  // frames of pictures that are made beside the clip
    bool video = true;             // whether there are pictures at all

    int64_t num_inference_steps() const { return static_cast<int64_t>(sigmas.size()) - 1; }
};

// One stage. `own`: what the checkpoint's files ask for in place of the preset's values; files that say how many steps
// they want have no guidance but what they ask for. `version` and `blocks` are the transformer's. A seed that is not
// given is drawn. Throws Error(invalid_request).
SampleSettings resolve(const ClipOptions& options, const Preset& preset, const FileDefaults& own,
                       const std::string& version, int64_t blocks);
// What is possible but probably not meant, a line each: CFG on a distilled checkpoint or steps that it was not made
// for, none on another, a list of sigmas that is another stage's. `told`: whether the files or their names say what the
// checkpoint is.
SDLTX_EXPORT std::vector<std::string> doubts(const SampleSettings& settings, const Preset& fitting, bool own_defaults,
                                             bool told);

}  // namespace sdltx
