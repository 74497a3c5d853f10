// Reading configuration: a missing key or a value that is not implemented is an error that names it.
#pragma once

#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>

#include "error.h"

namespace sdltx {

using Json = nlohmann::json;

// Nesting that is read: no file that means well goes deeper, and what walks a value does so recursively.
constexpr size_t max_json_depth = 64;
// Values of a text that is kept as a whole, which take up to a hundred bytes each: the header of the largest checkpoint
// has forty thousand.
constexpr size_t max_json_values = 1 << 19;
// Bytes of a file that describes a model; the largest that are known, tokenizers, take half.
constexpr int64_t max_json_file = 64 << 20;

// Of the outermost object: how many members it may have, and one that it has twice, as only the last of two is kept.
struct JsonMembers {
    size_t most;
    std::string repeated = "";
};

// Parses `text`. Throws Error(code), "[where] what is wrong" and the hint, for what is not JSON or goes beyond the
// limits, before any of it is kept.
SDLTX_EXPORT Json parse_json_text(std::string_view text, ErrorCode code, const std::string& where,
                                  const std::string& hint = "", JsonMembers* members = nullptr);

// The same for what stands in a model's file.
Json parse_json_value(std::string_view text, const std::string& where, JsonMembers* members = nullptr);

// The same for what has to be an object.
Json parse_json(std::string_view text, const std::string& where);

// The same for a file, which is at most as long as the files that come with a model are.
Json parse_json_file(const std::string& path);

// A value as error messages quote it: short, and without what a list or an object holds.
std::string spell(const Json& value);

// A number without a fraction that fits 64 bits, however it is written.
inline bool is_whole(const Json& value) {
    if (value.is_number_unsigned()) return value.get<uint64_t>() <= INT64_MAX;
    if (!value.is_number_float()) return value.is_number_integer();
    const double number = value.get<double>();
    return std::abs(number) < 9e15 && number == std::floor(number);
}

template <typename T>
T require(const Json& j, const char* key, const std::string& where) {
    if (!j.contains(key))
        throw Error(ErrorCode::model_mismatch, "[" + where + "] the configuration lacks '" + key + "'");
    const Json& value = j.at(key);
    // The parser's own conversions cut off fractions and take truth values for numbers.
    bool fits = true;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
        fits = is_whole(value);
    else if constexpr (std::is_floating_point_v<T>)
        fits = value.is_number();
    try {
        if (fits) return value.get<T>();
    } catch (const Json::exception&) {
        // of another kind
    }
    throw Error(ErrorCode::model_mismatch,
                "[" + where + "] '" + key + "' has a value of the wrong kind: " + spell(value));
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

// The same where a missing key stands for that value.
template <typename T>
void require_value_or(const Json& j, const char* key, const T& expected, const std::string& where) {
    if (j.contains(key) && !j.at(key).is_null()) require_value(j, key, expected, where);
}

}  // namespace sdltx
