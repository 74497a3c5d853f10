// What a clip can be asked to be: options.def as a struct, as a table, and as loops over both. No ggml.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/types.h"
#include "ltxv/tiling.h"

namespace sdltx {

enum class OptionKind { text, choice, whole, real, flag, duration, wholes, reals, file, files, loras };
SDLTX_EXPORT const char* name_of(OptionKind kind);

// Types of fields, by the names of the kinds.
namespace option_types {
using text = std::string;
using choice = std::string;
using whole = int64_t;
using real = double;
using flag = bool;
using duration = std::string;  // "5s", "5", "auto"
using wholes = std::vector<int64_t>;
using reals = std::vector<double>;
using file = std::string;
using files = std::vector<std::string>;
using loras = std::vector<LoraFile>;
}  // namespace option_types

// What is not given is the checkpoint's own.
struct ClipOptions {
#define OPTION(kind, name, ...) std::optional<option_types::kind> name;
#include "options.def"
#undef OPTION
};

// A row of options.def.
struct Option {
    OptionKind kind;
    const char *name, *group, *unit;
    double least, most;
    const char *flags, *metavar;
    bool remembered, inherited;
    const char *since, *help, *docs;

    bool has_range() const { return least != 0 || most != 0; }
    // Of a choice: what there is to choose from.
    SDLTX_EXPORT std::vector<std::string> choices() const;
};
SDLTX_EXPORT const std::vector<Option>& all_options();
// Throws Error(invalid_request).
SDLTX_EXPORT const Option& option_named(const std::string& name);

// Calls visit(option, field) for every option, where `field` points to the member of ClipOptions.
template <typename Visit>
void for_each_option(Visit&& visit) {
    const Option* row = all_options().data();
#define OPTION(kind, name, ...) visit(*row++, &ClipOptions::name);
#include "options.def"
#undef OPTION
}

// A list that may not be given.
template <typename T>
const std::vector<T>& listed(const std::optional<std::vector<T>>& values) {
    static const std::vector<T> none;
    return values ? *values : none;
}

// Throws Error(invalid_request) for what no checkpoint could do. Needs no model, so call it before one is loaded.
SDLTX_EXPORT void check(const ClipOptions& options);

// How long a clip is to be: as its prompt asks for, or so many seconds. Nothing if it is told in frames, or not at all.
// Throws Error(invalid_request).
struct Duration {
    bool by_prompt;
    double seconds;
};
std::optional<Duration> duration_of(const ClipOptions& options);
// Seconds of an option of that kind: "4s", "4". Throws Error(invalid_request).
double seconds_of(const char* name, const std::string& text);
// The number of frames, unit k + 1, that comes nearest; unit: a multiple of 8.
int64_t frames_nearest(double seconds, double frame_rate, int64_t unit = 8);

// Tiles as in the reference unless others are asked for. Throws Error(invalid_request) for those that do not advance.
SDLTX_EXPORT Tiling tiling_of(const ClipOptions& options);

// An object of what is given, by name; LoRAs are lists of a path and a strength.
SDLTX_EXPORT Json to_json(const ClipOptions& options);
// Sets what `json` has, where null stands for what is not given; other names stay where they are. Throws
// Error(invalid_request) for values of another kind.
SDLTX_EXPORT void read_json(const Json& json, ClipOptions& options);

}  // namespace sdltx
