// What a set of model files is, in words and figures.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "ggml/model_file.h"
#include "ltxv/config.h"
#include "presets.h"

namespace sdltx {

// The networks of a model; a set of files may hold some of them. A clip from text needs all but the two encoders of
// pixels and sound.
enum class Part {
    transformer,
    text_encoder,
    text_projection,
    video_decoder,
    video_encoder,
    audio_decoder,
    vocoder,
    audio_encoder
};
constexpr std::array<Part, 8> all_parts = {Part::transformer,   Part::text_encoder,  Part::text_projection,
                                           Part::video_decoder, Part::video_encoder, Part::audio_decoder,
                                           Part::vocoder,       Part::audio_encoder};
// "text encoder"
SDLTX_EXPORT const char* name_of(Part part);
// Throws Error(invalid_request).
SDLTX_EXPORT Part part_of(const std::string& name);

// Where a tensor of a model belongs.
struct Place {
    const char* part;             // "transformer", "video encoder", "other"; also what this version has no use for
    std::optional<Part> network;  // of which every tensor has a use, if that network is there
};
Place place_of(const std::string& tensor);

struct ModelInfo {
    std::string name;     // "LTX-2.3"
    std::string version;  // "2.3.0"
    bool distilled = false;
    bool distilled_told = false;  // by the files or their names; else it counts as not
    std::string note;             // for its users; may be empty
    std::string negative_prompt;  // what clips are guided away from unless another is given
    std::vector<Part> parts;      // in the order of all_parts
    const Preset* preset = nullptr;
    SampleOptions defaults;  // where the files ask for something else than the preset

    SDLTX_EXPORT bool has(Part part) const;
};

// Everything but the parts. Throws Error(model_mismatch) for defaults in the files that cannot be read.
ModelInfo describe(const ModelFiles& files, const ModelConfig& config);

// What speaks against files that are each in order but may not belong together, a line each.
std::vector<std::string> doubts(const ModelFiles& files, const ModelConfig& config);

}  // namespace sdltx
