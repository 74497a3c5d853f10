// What a set of model files is, in words and figures.
#pragma once

#include <string>
#include <vector>

#include "ggml/model_file.h"
#include "ltxv/config.h"
#include "parts.h"
#include "presets.h"

namespace sdltx {

struct ModelInfo {
    std::string name;     // "LTX-2.3"
    std::string version;  // "2.3.0"
    bool distilled = false;
    bool distilled_told = false;  // by the files or their names; else it counts as not
    int64_t image_crf = 0;        // how much H.264 spoils pictures first: as the VAE's version is used to
    std::string note;             // for its users; may be empty
    std::string negative_prompt;  // what clips are guided away from unless another is given
    std::vector<Part> parts;      // in the order of all_parts
    const Preset* preset = nullptr;
    FileDefaults defaults;  // where the files ask for something else than the preset

    SDLTX_EXPORT bool has(Part part) const;
};

// Everything but the parts. Throws Error(model_mismatch) for defaults in the files that cannot be read.
ModelInfo describe(const ModelFiles& files, const ModelConfig& config);

// What speaks against files that are each in order but may not belong together, a line each.
std::vector<std::string> doubts(const ModelFiles& files, const ModelConfig& config);

}  // namespace sdltx
