// Values that have names: rows of tables and enums, found by what people type.
#pragma once

#include <string>
#include <vector>

#include "error.h"

namespace sdltx {

[[noreturn]] inline void refuse_name(const std::string& name, const char* what, const std::vector<std::string>& known) {
    std::string text;
    for (const std::string& one : known) text += (text.empty() ? "" : ", ") + one;
    throw Error(ErrorCode::invalid_request,
                std::string("[sample] there is no ") + what + " '" + name + "'; use one of " + text);
}

template <typename Row>
std::vector<std::string> names_of(const std::vector<Row>& rows) {
    std::vector<std::string> names;
    for (const Row& row : rows) names.emplace_back(row.name);
    return names;
}

// Throws Error(invalid_request) that lists the names there are.
template <typename Row>
const Row& row_named(const std::vector<Row>& rows, const std::string& name, const char* what) {
    for (const Row& row : rows)
        if (name == row.name) return row;
    refuse_name(name, what, names_of(rows));
}

// Of an enum whose values count from 0, in the order of `names`.
template <typename T>
T value_named(const std::vector<std::string>& names, const std::string& name, const char* what) {
    for (size_t i = 0; i < names.size(); ++i)
        if (name == names[i]) return static_cast<T>(i);
    refuse_name(name, what, names);
}

}  // namespace sdltx
