// What a clip is made with: what was asked for, what a checkpoint wants, and what comes of both. No ggml.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "export.h"
#include "ltxv/geometry.h"

namespace sdltx {

// A request. What is not given is the checkpoint's own.
struct SampleOptions {
    std::optional<int64_t> width, height;        // pixels
    std::optional<int64_t> num_frames;           // 8 k + 1
    std::optional<double> frame_rate;            // frames per second
    std::optional<int64_t> num_inference_steps;  // of the checkpoint's schedule
    std::optional<std::vector<float>> sigmas;    // in place of a schedule
    std::optional<int64_t> seed;                 // 0 to 2^63 - 1
    std::optional<std::string> preset;           // of preset_names(), in place of the one that fits the checkpoint
};

// How the noise levels came about.
enum class Schedule { distilled, ltx2, given };
SDLTX_EXPORT const char* name_of(Schedule schedule);

// A request with nothing left open.
struct SampleSettings {
    std::string preset;
    int64_t width, height, num_frames;
    double frame_rate;
    Schedule schedule;
    std::vector<float> sigmas;  // one more than there are steps
    int64_t seed;
    Geometry latent;

    int64_t num_inference_steps() const { return static_cast<int64_t>(sigmas.size()) - 1; }
};

// What a kind of checkpoint was made for (sampling.md sections 4 and 6).
struct Preset {
    const char* name;
    const char* versions;  // how the versions of its checkpoints begin
    bool distilled;
    int64_t width, height, num_frames;
    double frame_rate;
    int64_t num_inference_steps;
    Schedule schedule;
};
// The first of the table that fits; later versions get what the latest known one has.
const Preset& preset_of(const std::string& version, bool distilled);
SDLTX_EXPORT std::vector<std::string> preset_names();

// Throws Error(invalid_request) for what no checkpoint could do. Needs no model, so call it before one is loaded.
SDLTX_EXPORT void check(const SampleOptions& options);
// `own`: what the checkpoint's files ask for in place of the preset's values. A seed that is not given is drawn. Throws
// Error(invalid_request).
SampleSettings resolve(const SampleOptions& options, const Preset& preset, const SampleOptions& own);

}  // namespace sdltx
