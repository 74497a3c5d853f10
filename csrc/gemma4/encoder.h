// The text tower of Gemma 4 (ltx-2.5.md section 4.3; transformers' Gemma4UnifiedTextModel).
#pragma once

#include "config.h"
#include "gemma/tower.h"

namespace sdltx {

class Gemma4Encoder : public TextTower {
 public:
    // Throws Error(model_mismatch) for another Gemma, and for files that lost the scalars of layers.
    Gemma4Encoder(const ModelFiles& files, Workspace& workspace);

    // What its file says it is, to be compared with what a transformer was trained with; empty if it says nothing.
    const std::string& version() const { return config_.version; }

 private:
    struct Layer : TowerLayer {     // global ones have no v_proj
        ggml_tensor* layer_scalar;  // [hidden], all the same
    };
    Gemma4Encoder(const ModelFiles& files, Workspace& workspace, const Gemma4Config& config);
    ggml_tensor* layer(Plan& g, const Tensors& t, size_t index) const override;
    size_t kind_of(size_t index) const override { return config_.global[index]; }
    int32_t embedded(int32_t id) const override;

    Gemma4Config config_;
    std::vector<Layer> layers_;
};

}  // namespace sdltx
