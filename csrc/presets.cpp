#include "presets.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "error.h"
#include "ltxv/schedule.h"

namespace sdltx {

namespace {

constexpr const char* schedule_names[] = {"distilled", "ltx2", "given"};  // in the order of the enum

constexpr Preset presets[] = {
    //  name       versions  distilled   size      frames  rate  steps  schedule
    {"distilled", "", true, 768, 512, 121, 24, 8, Schedule::distilled},
    {"dev-2.0", "2.0", false, 768, 512, 121, 24, 40, Schedule::ltx2},
    {"dev", "", false, 768, 512, 121, 24, 30, Schedule::ltx2},
};

std::vector<float> sigmas_of(Schedule schedule, int64_t steps) {
    return schedule == Schedule::distilled ? distilled_sigmas() : ltx2_sigmas(steps);
}

int64_t random_seed() {
    std::random_device entropy;
    return entropy() & 0x7fffffff;  // short enough to be read out and typed
}

}  // namespace

const char* name_of(Schedule schedule) { return schedule_names[static_cast<size_t>(schedule)]; }

const Preset& preset_of(const std::string& version, bool distilled) {
    for (const Preset& p : presets)
        if (p.distilled == distilled && version.rfind(p.versions, 0) == 0) return p;
    return presets[0];  // never: the last rows of both kinds fit every version
}

std::vector<std::string> preset_names() {
    std::vector<std::string> names;
    for (const Preset& p : presets) names.emplace_back(p.name);
    return names;
}

namespace {

const Preset& preset_named(const std::string& name) {
    std::string known;
    for (const Preset& p : presets) {
        if (name == p.name) return p;
        known += (known.empty() ? "" : ", ") + std::string(p.name);
    }
    throw Error(ErrorCode::invalid_request, "[sample] there is no preset '" + name + "'; use one of " + known);
}

}  // namespace

void check(const SampleOptions& o) {
    if (o.preset) preset_named(*o.preset);
    if (o.seed && *o.seed < 0)
        throw Error(ErrorCode::invalid_request, "[sample] seed " + std::to_string(*o.seed) +
                                                    " is out of range; use 0 to 2^63 - 1, or none for a random one");
    if (o.sigmas) {
        if (o.sigmas->empty()) throw Error(ErrorCode::invalid_request, "[sample] the list of sigmas is empty");
        check_sigmas(*o.sigmas);
        if (o.num_inference_steps && *o.num_inference_steps + 1 != static_cast<int64_t>(o.sigmas->size()))
            throw Error(ErrorCode::invalid_request,
                        "[sample] the list of sigmas and the number of steps contradict each other; give one of them");
    } else if (o.num_inference_steps) {
        ltx2_sigmas(*o.num_inference_steps);
    }
    // What is not given becomes a value that is legal beside the others: a clip of about a second.
    const double rate =
        o.frame_rate.value_or(static_cast<double>(std::clamp<int64_t>(o.num_frames.value_or(1), 1, 1000)));
    const int64_t frames = rate > 0 && rate <= 1000 ? 8 * static_cast<int64_t>(std::ceil(rate / 8)) + 1 : 1;
    latent_geometry(o.width.value_or(32), o.height.value_or(32), o.num_frames.value_or(frames), rate);
}

SampleSettings resolve(const SampleOptions& o, const Preset& fitting, const SampleOptions& own) {
    check(o);
    const Preset& preset = o.preset ? preset_named(*o.preset) : fitting;
    const auto choose = [](const auto& given, const auto& of_files, auto of_preset) {
        return given ? *given : of_files.value_or(of_preset);
    };
    SampleSettings s;
    s.preset = preset.name;
    s.width = choose(o.width, own.width, preset.width);
    s.height = choose(o.height, own.height, preset.height);
    s.num_frames = choose(o.num_frames, own.num_frames, preset.num_frames);
    s.frame_rate = choose(o.frame_rate, own.frame_rate, preset.frame_rate);
    s.latent = latent_geometry(s.width, s.height, s.num_frames, s.frame_rate);
    if (o.sigmas) {
        s.schedule = Schedule::given;
        s.sigmas = *o.sigmas;
    } else {
        // The list of a distilled checkpoint has its length; another number of steps falls back to the formula.
        const int64_t steps =
            choose(o.num_inference_steps, &preset == &fitting ? own.num_inference_steps : std::optional<int64_t>{},
                   preset.num_inference_steps);
        s.schedule = steps == preset.num_inference_steps ? preset.schedule : Schedule::ltx2;
        s.sigmas = sigmas_of(s.schedule, steps);
    }
    s.seed = o.seed ? *o.seed : random_seed();
    return s;
}

}  // namespace sdltx
