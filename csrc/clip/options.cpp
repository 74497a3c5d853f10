#include "options.h"

#include <algorithm>
#include <cmath>

#include "base/named.h"
#include "ltxv/geometry.h"
#include "ltxv/schedule.h"
#include "material.h"
#include "model/presets.h"
#include "recipes.h"

namespace sdltx {

namespace {

constexpr const char* kind_names[] = {"text",   "choice", "whole", "real",  "flag", "duration",
                                      "wholes", "reals",  "file",  "files", "loras"};  // in the order of the enum

[[noreturn]] void out_of_range(const Option& option, double value) {
    // 2^63 - 1 is no number to be read.
    const std::string limit = option.most > 9e15 ? " or more" : std::string(" to ").append(spell_number(option.most));
    throw Error(ErrorCode::invalid_request, std::string("[sample] ") + option.name + " " + spell_number(value) +
                                                " is out of range; use " + spell_number(option.least) + limit);
}

void check_range(const Option& option, double value) {
    if (option.has_range() && !(value >= option.least && value <= option.most)) out_of_range(option, value);
}
void check_range(const Option& option, int64_t value) { check_range(option, static_cast<double>(value)); }
void check_range(const Option& option, const std::string& value) {
    if (option.kind != OptionKind::choice) return;
    const std::vector<std::string> known = option.choices();
    if (std::find(known.begin(), known.end(), value) == known.end())
        refuse_name(value, std::string(option.name) == "guidance_method" ? "guidance method" : option.name, known);
}
void check_range(const Option&, bool) {}
void check_range(const Option&, const LoraFile& lora) {
    if (!std::isfinite(lora.strength))
        throw Error(ErrorCode::invalid_request, "[lora] the strength of " + lora.path + " is not a finite number");
}
template <typename T>
void check_range(const Option& option, const std::vector<T>& values) {
    for (const T& value : values) check_range(option, value);
}

void check_sizes(const ClipOptions& o) {
    // What is not given becomes a value that is legal beside the others: a clip of about a second.
    const double rate =
        o.frame_rate.value_or(static_cast<double>(std::clamp<int64_t>(o.num_frames.value_or(1), 1, 1000)));
    const int64_t frames = rate > 0 && rate <= 1000 ? 8 * static_cast<int64_t>(std::ceil(rate / 8)) + 1 : 1;
    latent_geometry(o.width.value_or(32), o.height.value_or(32), o.num_frames.value_or(frames), rate);
}

void check_schedule(const ClipOptions& o) {
    if (!o.sigmas) {
        if (o.num_inference_steps) ltx2_sigmas(*o.num_inference_steps);
        return;
    }
    if (o.sigmas->empty()) throw Error(ErrorCode::invalid_request, "[sample] the list of sigmas is empty");
    check_sigmas({o.sigmas->begin(), o.sigmas->end()});
    if (o.num_inference_steps && *o.num_inference_steps + 1 != static_cast<int64_t>(o.sigmas->size()))
        throw Error(ErrorCode::invalid_request,
                    "[sample] the list of sigmas and the number of steps contradict each other; give one of them");
}

// --- JSON ---

Json json_of(const LoraFile& lora) { return {lora.path, lora.strength}; }
template <typename T>
Json json_of(const T& value) {
    return value;
}
template <typename T>
Json json_of(const std::vector<T>& values) {
    Json list = Json::array();
    for (const T& value : values) list.push_back(json_of(value));
    return list;
}

bool read(const Json& j, std::string& to) { return j.is_string() && (j.get_to(to), true); }
bool read(const Json& j, bool& to) { return j.is_boolean() && (j.get_to(to), true); }
bool read(const Json& j, int64_t& to) { return is_whole(j) && (j.get_to(to), true); }
bool read(const Json& j, double& to) { return j.is_number() && (j.get_to(to), true); }
bool read(const Json& j, LoraFile& to) {
    if (j.is_string()) return read(j, to.path);
    if (!j.is_array() || j.size() != 2 || !read(j[0], to.path) || !j[1].is_number()) return false;
    to.strength = j[1].get<float>();
    return true;
}
template <typename T>
bool read(const Json& j, std::vector<T>& to) {
    if (!j.is_array()) return false;
    for (const Json& one : j)
        if (!read(one, to.emplace_back())) return false;
    return true;
}

const char* expected(OptionKind kind) {
    switch (kind) {
        case OptionKind::whole:
            return "a whole number";
        case OptionKind::real:
            return "a number";
        case OptionKind::flag:
            return "true or false";
        case OptionKind::duration:
            return "seconds as text, such as 5s, or auto";
        case OptionKind::wholes:
            return "a list of whole numbers";
        case OptionKind::reals:
            return "a list of numbers";
        case OptionKind::files:
            return "a list of paths";
        case OptionKind::loras:
            return "a list of paths, or of pairs of a path and a strength";
        default:
            return "text";
    }
}

}  // namespace

const char* name_of(OptionKind kind) { return kind_names[static_cast<size_t>(kind)]; }

const std::vector<Option>& all_options() {
    static const std::vector<Option> rows = {
#define OPTION(kind, name, ...) {OptionKind::kind, #name, __VA_ARGS__},
#include "options.def"
#undef OPTION
    };
    return rows;
}

const Option& option_named(const std::string& name) {
    for (const Option& option : all_options())
        if (name == option.name) return option;
    throw Error(ErrorCode::invalid_request, "[request] there is no option '" + name + "'");
}

std::vector<std::string> Option::choices() const {
    const std::string of = name;
    if (of == "recipe") return recipe_names();
    if (of == "preset") return preset_names();
    if (of == "retake_of") return retake_parts();
    if (of == "sampler") return sampler_names();
    if (of == "guidance_method") return guidance_method_names();
    return {};
}

void check(const ClipOptions& o) {
    for_each_option([&](const Option& option, auto field) {
        if (o.*field) check_range(option, *(o.*field));
    });
    check_recipe(o);
    if (constexpr size_t most_upscalers = 4; listed(o.upscaler).size() > most_upscalers)
        throw Error(ErrorCode::invalid_request, "[two-stage] there are " + std::to_string(o.upscaler->size()) +
                                                    " upscalers; at most " + std::to_string(most_upscalers) +
                                                    " can follow each other");
    if (const auto& i = o.guidance_interval; i && (i->size() != 2 || (*i)[0] > (*i)[1]))
        throw Error(ErrorCode::invalid_request,
                    "[sample] guidance_interval must be two noise levels, the lower first, within 0 and 1");
    if (o.enhance_system && !o.enhance.value_or(false))
        throw Error(ErrorCode::invalid_request, "[enhance] enhance_system is of enhance; give that as well");
    check_material(o);
    check_schedule(o);
    check_sizes(o);
    tiling_of(o);
    if (duration_of(o) && o.num_frames)
        throw Error(ErrorCode::invalid_request,
                    "[sample] duration and num_frames both tell how long the clip is; give one of them");
}

double seconds_of(const char* name, const std::string& text) {
    std::string number = text;
    if (!number.empty() && number.back() == 's') number.pop_back();
    const Json read = Json::parse(number, nullptr, /*allow_exceptions=*/false);
    constexpr double longest = 3600;
    const double seconds = read.is_number() ? read.get<double>() : 0;
    if (!(seconds > 0 && seconds <= longest))
        throw Error(ErrorCode::invalid_request, std::string("[sample] the ") + name + " " + spell(Json(text)) +
                                                    " is none; use seconds above 0, such as 5s or 2.5" +
                                                    (std::string(name) == "duration" ? ", or auto" : ""));
    return seconds;
}

std::optional<Duration> duration_of(const ClipOptions& o) {
    if (!o.duration) return std::nullopt;
    if (*o.duration == "auto") return Duration{true, 0};
    return Duration{false, seconds_of("duration", *o.duration)};
}

int64_t frames_nearest(double seconds, double frame_rate, int64_t unit) {
    const double whole = (seconds * frame_rate - 1) / static_cast<double>(unit);
    return unit * std::max<int64_t>(0, std::llround(whole)) + 1;
}

Tiling tiling_of(const ClipOptions& o) {
    if (!o.tiling) return {};
    const std::vector<int64_t>& t = *o.tiling;
    if (t.size() != 4)
        throw Error(ErrorCode::invalid_request,
                    "[decode] tiling is four numbers: size and overlap in pixels, frames and overlap in frames");
    const Tiling tiling{t[0], t[1], t[2], t[3]};
    check(tiling);
    return tiling;
}

Json to_json(const ClipOptions& o) {
    Json out = Json::object();
    for_each_option([&](const Option& option, auto field) {
        if (o.*field) out[option.name] = json_of(*(o.*field));
    });
    return out;
}

void read_json(const Json& json, ClipOptions& o) {
    for_each_option([&](const Option& option, auto field) {
        const auto found = json.find(option.name);
        if (found == json.end() || found->is_null()) return;
        typename std::decay_t<decltype(o.*field)>::value_type value{};
        // One file needs no list around it.
        const Json& given = *found;
        const bool single = option.kind == OptionKind::files && given.is_string();
        if (!read(single ? Json::array({given}) : given, value))
            throw Error(ErrorCode::invalid_request, std::string("[request] ") + option.name + ": expected " +
                                                        expected(option.kind) + ", got " + spell(given));
        o.*field = std::move(value);
    });
}

}  // namespace sdltx
