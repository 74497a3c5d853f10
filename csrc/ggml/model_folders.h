// Which files a model is read from: those that are named, those of folders, and the other parts of what is split.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sdltx {

// A file, and why it is looked at: by its own name, or on account of a folder.
enum class Source { named, listed, folder, beside_index };
struct Given {
    std::string path;
    Source source;
    std::string set;  // the same for the parts of one model: those of an index, and NAME-00001-of-00003
};

// The files that `paths` name or contain, those beside an index last; `folders` receives where they lie. Throws
// Error(model_file), also when a part of what is named is not there.
std::vector<Given> given_files(const std::vector<std::string>& paths, std::vector<std::string>& folders);

// The file that a folder was given for: the only one, or adapter_model.safetensors. What is no folder stays.
// Throws Error(model_file) for one of several parts, which would be less than the whole.
std::string one_file_of(const std::string& path);

}  // namespace sdltx
