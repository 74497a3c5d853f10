// Reading configuration: a missing key or a value that is not implemented is an error that names it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "error.h"

namespace sdltx {

using Json = nlohmann::json;

inline Json parse_json(const std::string& text, const std::string& where) {
    Json j = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!j.is_object()) throw Error(ErrorCode::model_file, "[" + where + "] is not a JSON object; the file is damaged");
    return j;
}

template <typename T>
T require(const Json& j, const char* key, const std::string& where) {
    if (!j.contains(key))
        throw Error(ErrorCode::model_mismatch, "[" + where + "] the configuration lacks '" + key + "'");
    try {
        return j.at(key).get<T>();
    } catch (const Json::exception&) {
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] '" + key + "' has a value of the wrong kind: " + j.at(key).dump());
    }
}

template <typename T>
T value_or(const Json& j, const char* key, T fallback, const std::string& where) {
    return j.contains(key) && !j.at(key).is_null() ? require<T>(j, key, where) : fallback;
}

// A natural number within [1, limit].
inline int64_t require_count(const Json& j, const char* key, int64_t limit, const std::string& where) {
    const int64_t n = require<int64_t>(j, key, where);
    if (n < 1 || n > limit)
        throw Error(ErrorCode::model_mismatch, "[" + where + "] '" + key + "' is " + std::to_string(n) +
                                                   ", not between 1 and " + std::to_string(limit));
    return n;
}

// The one value of `key` that the code implements.
template <typename T>
void require_value(const Json& j, const char* key, const T& expected, const std::string& where) {
    if (require<T>(j, key, where) != expected)
        throw Error(ErrorCode::model_mismatch, "[" + where + "] '" + key + "' is " + j.at(key).dump() + "; only " +
                                                   Json(expected).dump() + " is implemented");
}

}  // namespace sdltx
