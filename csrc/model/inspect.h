// What a set of model files is, without computing anything: parts, sizes, types, and everything that is wrong.
#pragma once

#include <string>
#include <vector>

#include "base/export.h"

namespace sdltx {

// A JSON object with the keys
//   model, version, distilled, preset, note: as in ModelInfo; null if no transformer is among the files
//   parts: for each of {part, tensors, parameters, bytes, types: {type: [tensors, bytes]}, used}, in the order of a run
//   missing: names of the parts that a clip with sound needs besides those that are there
//   files: for each of {path, format, kind, bytes, tensors, metadata: {key: text, long ones cut}}
//   tensors: for each of {name, stored_name, part, file (its number), type, shape, bytes}
//   unexpected: names of tensors among the weights of a network that has no use for them
//   problems, doubts: a line each; files with problems cannot be loaded together
// Throws nothing on account of the files; Error(backend | out_of_memory) from elsewhere.
SDLTX_EXPORT std::string inspect(const std::vector<std::string>& paths);

}  // namespace sdltx
