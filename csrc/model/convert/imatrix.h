// How much each input of a matrix matters, as llama.cpp measures it: GGUF, and the older format without a header.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "ggml/model_file.h"

namespace sdltx {

class Imatrix {
 public:
    // Throws Error(model_file) for a file that is none.
    static Imatrix load(const std::string& path);

    // One positive number for each column of a tensor under its canonical name, or null. Throws Error(model_mismatch)
    // when there are not as many as columns.
    const std::vector<float>* of(const TensorInfo& t) const;

 private:
    std::string path_;
    std::unordered_map<std::string, std::vector<float>> columns_;  // by name, without prefix
};

}  // namespace sdltx
