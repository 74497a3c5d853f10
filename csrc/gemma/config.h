// Reading the configurations of the Gemmas, whatever they are written in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "ggml/model_file.h"

namespace sdltx {

// The most of each that a configuration may ask for: weights are declared before anything is looked for.
struct TowerLimits {
    int64_t width = 1 << 16, layers = 1 << 10, heads = 1 << 10, head_dim = 1 << 10, hidden = 1 << 20, window = 1 << 20;
};
constexpr TowerLimits tower_limits;

// What configurations of all of them tell in the same way.
struct TowerSizes {
    int64_t hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, sliding_window;
};
TowerSizes read_tower_sizes(const Json& config);

// `layer_types`: which layers attend globally. Throws Error(model_mismatch) for types that there are not.
std::vector<bool> read_layer_types(const Json& config);

// The numbers of a GGUF file below one architecture, "gemma3.": all Errors(model_mismatch) name file and key.
class GgufNumbers {
 public:
    GgufNumbers(const ModelFile& file, std::string architecture) : file_(file), prefix_(std::move(architecture)) {}

    std::optional<double> find(const std::string& key) const;
    double number(const std::string& key, std::optional<double> fallback = {}) const;
    int64_t whole(const std::string& key, int64_t most) const;  // 1 to most
    TowerSizes sizes() const;
    // One for each of `layers`: a list of as many, or one number for all. Numbers and booleans alike.
    std::vector<double> of_layers(const std::string& key, int64_t layers) const;

 private:
    [[noreturn]] void refuse(const std::string& key, const std::string& what) const;

    const ModelFile& file_;
    std::string prefix_;
};

}  // namespace sdltx
