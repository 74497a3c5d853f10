// LoRAs: what is added to the weights of the transformer while it runs. The weights stay as they are, in whatever type.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/types.h"
#include "ggml/plan.h"
#include "ggml/weights.h"

namespace sdltx {

// An opened file, which is used where it lies.
class Lora {
 public:
    // `opened`: its file alone, and `path` that which was given for it. A log line tells how many modules it changes.
    // Throws Error(model_mismatch) for what read_lora() refuses, and for values that are not finite.
    Lora(const std::string& path, std::unique_ptr<ModelFiles> opened, const Weights& transformer);

    const std::string& path() const { return path_; }
    // Whether the file is still the one that was opened.
    bool is_current() const;
    // In the same blocks as the transformer's.
    Weights& weights() { return *weights_; }
    // At strength 1.
    const Deltas& deltas() const { return deltas_; }

 private:
    std::string path_;
    std::unique_ptr<ModelFiles> opened_;
    std::unique_ptr<Weights> weights_;
    Deltas deltas_;
};

// Those of a run, each with its strength. One of strength 0 is not there.
class Loras {
 public:
    explicit Loras(std::vector<std::pair<std::shared_ptr<Lora>, float>> files);

    const Deltas& deltas() const { return deltas_; }
    std::vector<Weights*> weights() const;

 private:
    std::vector<std::shared_ptr<Lora>> files_;
    Deltas deltas_;
};

}  // namespace sdltx
