#include "info.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "ltxv/version.h"

namespace sdltx {

namespace {

// "2.3" of "2.3.0"
std::string minor_version(const std::string& version) {
    return version.substr(0, version.find_first_of(".-", version.find('.') + 1));
}

// Whether a name of a file or folder calls its model distilled, or says that it is not; nothing if it is silent.
std::optional<bool> says_distilled(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    for (const char* no :
         {"not-distilled", "not_distilled", "non-distilled", "non_distilled", "undistilled", "-dev", "_dev"})
        if (name.find(no) != std::string::npos) return false;
    if (name.find("distilled") != std::string::npos) return true;
    return std::nullopt;
}

std::optional<bool> says_distilled(const ModelFile& file) {
    const std::filesystem::path path = file.path();
    const auto own = says_distilled(path.filename().string());
    return own ? own : says_distilled(path.parent_path().filename().string());
}

}  // namespace

bool ModelInfo::has(Part part) const { return std::find(parts.begin(), parts.end(), part) != parts.end(); }

ModelInfo describe(const ModelFiles& files, const ModelConfig& config) {
    ModelInfo info;
    info.version = config.version;
    info.name = "LTX-" + minor_version(info.version);
    const TensorInfo* probe = files.find("model.diffusion_model.patchify_proj.weight");
    // Nothing inside a distilled transformer tells it from the one it was distilled from.
    if (probe) {
        const auto told = says_distilled(*probe->file);
        info.distilled = told.value_or(false);
        info.distilled_told = told.has_value();
    }
    constexpr int64_t crf_since_2_4 = 18, crf_before = 33;
    const TensorInfo* vae = files.find("vae.per_channel_statistics.mean-of-means");
    const std::string of_vae = vae ? vae->file->metadata("model_version").value_or(info.version) : info.version;
    info.image_crf = is_since(of_vae, "2.4") ? crf_since_2_4 : crf_before;
    info.note = files.metadata("sdltx.note").value_or("");
    info.negative_prompt = default_negative_prompt();
    // What files of other parts say is of the transformer that they came with.
    if (auto text = probe ? probe->file->metadata("sdltx.defaults") : std::nullopt) {
        const std::string where = "sdltx.defaults metadata";
        const Json j = parse_json(*text, where);
        info.distilled = value_or(j, "distilled", info.distilled, where);
        info.distilled_told = info.distilled_told || j.contains("distilled");
        info.negative_prompt = value_or(j, "negative_prompt", info.negative_prompt, where);
        const auto read = [&](const char* key, auto& to) {
            using Value = typename std::decay_t<decltype(to)>::value_type;
            if (j.contains(key)) to = require<Value>(j, key, where);
        };
        read("width", info.defaults.width);
        read("height", info.defaults.height);
        read("num_frames", info.defaults.num_frames);
        read("frame_rate", info.defaults.frame_rate);
        read("steps", info.defaults.num_inference_steps);
        read("guidance_scale", info.defaults.guidance_scale);
        read("audio_guidance_scale", info.defaults.audio_guidance_scale);
    }
    info.preset = &preset_of(info.version, info.distilled);
    return info;
}

std::vector<std::string> doubts(const ModelFiles& files, const ModelConfig& config) {
    const TensorInfo* probe = files.find("model.diffusion_model.patchify_proj.weight");
    if (!probe) return {};
    const ModelFile& transformer = *probe->file;
    const auto distilled = says_distilled(transformer);
    const auto version = transformer.metadata("model_version");
    const auto kind = [](bool d) { return d ? "distilled" : "not distilled"; };
    std::vector<std::string> lines;
    const auto generation = [](bool of_2_0) { return of_2_0 ? "LTX-2.0" : "LTX-2.3"; };
    const auto compare = [&](Part part, bool of_2_0) {
        if (config.transformer && config.transformer->caption_projection != of_2_0)
            lines.push_back(std::string("[load] the ") + name_of(part) + " is of " + generation(of_2_0) +
                            " and the transformer of " + generation(!of_2_0) + "; use parts of the same model");
    };
    if (config.vae) compare(Part::video_decoder, config.vae->reflect);
    if (config.vocoder) compare(Part::vocoder, config.vocoder->vocoder.hifi_gan);
    for (auto& file : files.files()) {
        // A text encoder is the same for all.
        const bool companion = std::any_of(file->tensors().begin(), file->tensors().end(), [](const TensorInfo& t) {
            const auto network = owner_of(t.name).network;
            return network && *network != Part::text_encoder;
        });
        if (file.get() == &transformer || !companion) continue;
        const auto own = says_distilled(*file);
        if (own && distilled && *own != *distilled)
            lines.push_back("[load] by their names " + transformer.path() + " is " + kind(*distilled) + " and " +
                            file->path() + " is " + kind(*own) + "; use parts of the same model");
        const auto own_version = file->metadata("model_version");
        if (version && own_version && minor_version(*version) != minor_version(*own_version))
            lines.push_back("[load] " + transformer.path() + " is of LTX-" + minor_version(*version) + " and " +
                            file->path() + " of LTX-" + minor_version(*own_version) + "; use parts of the same model");
    }
    return lines;
}

}  // namespace sdltx
