// LoRAs: low-rank branches beside the matrices of the transformer (checkpoints.md section 4), computed as they run. The
// matrices stay as they are, in whatever type.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ggml/plan.h"
#include "ggml/weights.h"
#include "types.h"

namespace sdltx {

class Loras {
 public:
    // Finds the matrices of `transformer` that the files are for, by the names of the releases, of diffusers and of
    // kohya's tools; a log line tells how many. One file is used where it lies; several become one branch per matrix,
    // with the sum of their ranks. Throws Error(model_file | model_mismatch) for what is no LoRA, is for another model,
    // or has values that are not finite.
    Loras(const std::vector<LoraFile>& files, const Weights& transformer);

    const std::vector<LoraFile>& files() const { return files_; }
    // In the same blocks as the transformer's.
    Weights& weights() { return *weights_; }
    const LowRanks& branches() const { return branches_; }

 private:
    std::vector<LoraFile> files_;
    std::vector<std::unique_ptr<ModelFiles>> opened_;
    std::unique_ptr<Weights> weights_;
    LowRanks branches_;
};

}  // namespace sdltx
