#include "request.h"

#include <algorithm>

#include "base/error.h"

namespace sdltx {

namespace {

constexpr const char *images_key = "images", *crf_key = "crf";
// What a clip remembers of a picture besides: whether the file still is what it was.
constexpr const char* checksum_key = "sha256";

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::invalid_request, "[request] " + what); }

Json json_of(const Condition& c) {
    Json out{{"path", c.path.empty() ? Json() : Json(c.path)}, {"frame", c.frame}, {"strength", c.strength}};
    out[crf_key] = c.crf < 0 ? Json() : Json(c.crf);
    return out;
}

Condition condition_of(const Json& j) {
    if (j.is_string()) {
        Condition alone;
        alone.path = j.get<std::string>();
        return alone;
    }
    if (!j.is_object()) refuse("images: expected objects with path, frame, strength and crf, got " + spell(j));
    Condition c;
    for (auto& [name, value] : j.items()) {
        const bool left_out = value.is_null();
        if (name == "path" && (left_out || value.is_string()))
            c.path = left_out ? "" : value.get<std::string>();
        else if (name == "frame" && is_whole(value))
            c.frame = value.get<int64_t>();
        else if (name == "strength" && value.is_number())
            c.strength = value.get<float>();
        else if (name == crf_key && (left_out || is_whole(value)))
            c.crf = left_out ? -1 : value.get<int64_t>();
        else if (name != checksum_key)
            refuse("images: " + name + " cannot be " + spell(value) + "; a picture has path, frame, strength and crf");
    }
    return c;
}

}  // namespace

const std::vector<std::string>& told_names() {
    static const std::vector<std::string> names{"sdltx_version", "model",     "model_version", "model_files",
                                                "device",        "precision", "schedule",      "passes",
                                                "upscalers",     "task",      "result_frames"};
    return names;
}

Json to_json(const Request& request) {
    Json out = to_json(request.options);
    for (const Condition& c : request.images) out[images_key].push_back(json_of(c));
    return out;
}

void read_json(const Json& json, Request& request) {
    if (!json.is_object()) refuse("expected an object with options by name, got " + spell(json));
    constexpr const char* upscalers_key = "upscalers";  // what those that were asked for came to
    const std::vector<std::string>& told = told_names();
    for (auto& [name, value] : json.items()) {
        if (std::find(told.begin(), told.end(), name) != told.end() || value.is_null()) continue;
        if (name == "noise" || name == "initial") {
            if (value != false)
                refuse("it was made from values that were given to a program (" + name + "), which it does not keep");
        } else if (name == images_key) {
            if (!value.is_array()) refuse("images: expected a list, got " + spell(value));
            request.images.clear();
            for (const Json& one : value) request.images.push_back(condition_of(one));
        } else {
            option_named(name);  // throws
        }
    }
    read_json(json, request.options);
    if (const auto found = json.find(upscalers_key);
        found != json.end() && !found->empty() && (!json.contains("upscaler") || json["upscaler"].is_null()))
        read_json(Json{{"upscaler", *found}}, request.options);
}

}  // namespace sdltx
