#include "json.h"

#include <fstream>
#include <unordered_set>

namespace sdltx {

Json parse_json_value(std::string_view text, const std::string& where, std::string* repeated_key) {
    bool too_deep = false;
    std::unordered_set<std::string> seen;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
        if (event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start)
            too_deep = too_deep || static_cast<size_t>(depth) >= max_json_depth;
        if (event == Json::parse_event_t::key && depth == 1 && repeated_key &&
            !seen.insert(value.get_ref<const std::string&>()).second)
            *repeated_key = value.get<std::string>();
        return !too_deep;  // what is too deep is not kept
    };
    Json j = Json::parse(text, watch, /*allow_exceptions=*/false);
    if (too_deep)
        throw Error(ErrorCode::model_file, "[" + where + "] is nested more than " + std::to_string(max_json_depth) +
                                               " levels deep; the file is damaged");
    if (j.is_discarded()) throw Error(ErrorCode::model_file, "[" + where + "] is not valid JSON; the file is damaged");
    return j;
}

Json parse_json(std::string_view text, const std::string& where) {
    Json j = parse_json_value(text, where);
    if (!j.is_object()) throw Error(ErrorCode::model_file, "[" + where + "] is not a JSON object; the file is damaged");
    return j;
}

Json parse_json_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    const auto size = in ? static_cast<int64_t>(in.tellg()) : -1;
    if (size < 0) throw Error(ErrorCode::model_file, "[" + path + "] cannot read the file");
    if (size > max_json_file)
        throw Error(ErrorCode::model_file, "[" + path + "] is larger than " + std::to_string(max_json_file >> 20) +
                                               " MiB; that is none of the files that describe a model");
    std::string text(static_cast<size_t>(size), '\0');
    in.seekg(0);
    if (!in.read(text.data(), size)) throw Error(ErrorCode::model_file, "[" + path + "] cannot read the file");
    return parse_json_value(text, path);
}

std::string spell(const Json& value) {
    constexpr size_t most = 80;
    if (value.is_array()) return "a list of " + std::to_string(value.size());
    if (value.is_object()) return "an object";
    std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
    if (text.size() > most) text = text.substr(0, most - 3) + "...";
    return text;
}

}  // namespace sdltx
