// The latent upsamplers of LTX-2 (upsampler.md; ltx-core LatentUpsampler): more pixels, or more frames.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "ggml/conv3d.h"
#include "ggml/workspace.h"

namespace sdltx {

class LatentUpsampler {
 public:
    enum class Kind { space_2, space_3_2, time_2 };
    static const char* name_of(Kind kind);  // "space x2"

    // `files` must outlive it. Throws Error(model_mismatch) for files that hold no upsampler of latents with so many
    // channels.
    LatentUpsampler(const ModelFiles& files, Workspace& workspace, int64_t channels);

    // Of an upscaler's file, read from its weights. Throws Error(model_mismatch) for one that is not implemented.
    static Kind kind_of(const ModelFiles& files);

    Weights& weights() { return weights_; }
    Kind kind() const { return kind_; }
    // Latents (F', H', W') -> of the result. Throws Error(invalid_request) for a size that it cannot bring forth.
    std::array<int64_t, 3> result(std::array<int64_t, 3> shape) const;

    // Video latents (C, F', H', W') as the video VAE has them, not normalised, to such latents. Stages: reference
    // module paths, "upsampler" for the one between the blocks.
    Array upsample(const Array& latents, Trace* trace) const;
    // What it takes for latents (F', H', W').
    MemoryUse measure(std::array<int64_t, 3> shape) const;

 private:
    struct GroupNorm {
        ggml_tensor *w, *b;  // [M]
    };
    struct Block {
        Conv3d conv1, conv2;
        GroupNorm norm1, norm2;
    };
    struct Built {
        std::unique_ptr<Plan> plan;
        ggml_tensor *in, *out;
    };
    std::vector<Block> declare_blocks(const std::string& list, int64_t width);
    GroupNorm declare_norm(const std::string& name, int64_t width);
    ggml_tensor* upsample(Plan& g, ggml_tensor* x) const;
    Built build(std::array<int64_t, 3> shape, Trace* trace) const;

    const ModelFiles& files_;
    Workspace& workspace_;
    int64_t channels_;
    Weights weights_;
    Kind kind_;
    Conv3d initial_conv_, final_conv_, upsampler_;
    GroupNorm initial_norm_;
    std::vector<Block> before_, after_;
};

}  // namespace sdltx
