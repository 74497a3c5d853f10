// Reading configuration: a missing key or a value that is not implemented is an error that names it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "error.h"

namespace sdltx {

using Json = nlohmann::json;

// Nesting that is read: no file that means well goes deeper, and what walks a value does so recursively.
constexpr size_t max_json_depth = 64;

// Parses `text`. Throws Error(model_file) for what is not JSON or nested deeper than max_json_depth. A key that the
// outermost object has twice is given out, as only the last of two is kept.
Json parse_json_value(std::string_view text, const std::string& where, std::string* repeated_key = nullptr);

// The same for what has to be an object.
Json parse_json(std::string_view text, const std::string& where);

// A value as error messages quote it: short, and without what a list or an object holds.
std::string spell(const Json& value);

template <typename T>
T require(const Json& j, const char* key, const std::string& where) {
    if (!j.contains(key))
        throw Error(ErrorCode::model_mismatch, "[" + where + "] the configuration lacks '" + key + "'");
    try {
        return j.at(key).get<T>();
    } catch (const Json::exception&) {
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] '" + key + "' has a value of the wrong kind: " + spell(j.at(key)));
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
        throw Error(ErrorCode::model_mismatch, "[" + where + "] '" + key + "' is " + spell(j.at(key)) + "; only " +
                                                   spell(Json(expected)) + " is implemented");
}

}  // namespace sdltx
