#include "model_info.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>

#include "error.h"
#include "json.h"

namespace sdltx {

namespace {

// In the order of the enum.
constexpr const char* part_names[] = {"transformer",   "text encoder",  "text projection",
                                      "video decoder", "audio decoder", "vocoder"};

// Whether a name of a file or folder calls its model distilled, or says that it is not; nothing if it is silent.
std::optional<bool> says_distilled(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* no : {"not-distilled", "not_distilled", "non-distilled", "non_distilled", "undistilled"})
        if (name.find(no) != std::string::npos) return false;
    if (name.find("distilled") != std::string::npos) return true;
    return std::nullopt;
}

}  // namespace

const char* name_of(Part part) { return part_names[static_cast<size_t>(part)]; }

Part part_of(const std::string& name) {
    for (Part part : all_parts)
        if (name == name_of(part)) return part;
    throw Error(ErrorCode::invalid_request, "[load] there is no part '" + name + "'");
}

bool ModelInfo::has(Part part) const { return std::find(parts.begin(), parts.end(), part) != parts.end(); }

ModelInfo describe(const ModelFiles& files, const ModelConfig& config) {
    ModelInfo info;
    info.version = config.version;
    info.name = "LTX-" + info.version.substr(0, info.version.find('.', info.version.find('.') + 1));
    // Nothing inside a distilled transformer tells it from the one it was distilled from.
    if (const TensorInfo* t = files.find("model.diffusion_model.patchify_proj.weight")) {
        const std::filesystem::path path = t->file->path();
        info.distilled = says_distilled(path.filename().string())
                             .value_or(says_distilled(path.parent_path().filename().string()).value_or(false));
    }
    info.note = files.metadata("sdltx.note").value_or("");
    if (auto text = files.metadata("sdltx.defaults")) {
        const std::string where = "sdltx.defaults metadata";
        const Json j = parse_json(*text, where);
        info.distilled = value_or(j, "distilled", info.distilled, where);
        const auto read = [&](const char* key, auto& to) {
            using Value = typename std::decay_t<decltype(to)>::value_type;
            if (j.contains(key)) to = require<Value>(j, key, where);
        };
        read("width", info.defaults.width);
        read("height", info.defaults.height);
        read("num_frames", info.defaults.num_frames);
        read("frame_rate", info.defaults.frame_rate);
        read("steps", info.defaults.num_inference_steps);
    }
    info.preset = &preset_of(info.version, info.distilled);
    return info;
}

}  // namespace sdltx
