// The encoder of the video VAE of LTX-2 (video_vae.md; ltx-core VideoEncoder): pixels to latents.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "base/types.h"
#include "config.h"
#include "ggml/workspace.h"
#include "image.h"
#include "tiling.h"
#include "video_vae_blocks.h"

namespace sdltx {

class VideoEncoder {
 public:
    VideoEncoder(const ModelFiles& files, Workspace& workspace, const VideoVaeConfig& config);

    Weights& weights() { return weights_; }

    // Frames with sides that are multiples of 32 -> normalised latents (C, F', H/32, W/32) of the first 8 (F' - 1) + 1;
    // they are read once for each tile that they are part of. Tiles are cut as the decoder's are and blended in latent
    // space. Throws Error(invalid_request) for other shapes and a tiling that does not advance. Progress counts tiles,
    // as "encode". Stages: "vae.encoder.conv_in", "vae.encoder.down_blocks.<i>", "vae.encoder.conv_out" of the last
    // tile.
    Array encode(const Footage& footage, const Tiling& tiling, const Progress& progress, Trace* trace) const;
    // What it takes with the largest tile of latents with this shape (F', H', W').
    MemoryUse measure(std::array<int64_t, 3> shape, const Tiling& tiling) const;

 private:
    struct DownBlock {
        std::vector<VideoResBlock> res_blocks;  // of a res_x
        Conv3d conv;                            // of a compress block
        std::array<int, 3> stride{};            // (time, height, width)
        int64_t averaged = 1;  // how many channels of what goes in, folded, become one of what is added to the result
    };
    struct Built {
        std::array<int64_t, 3> shape;  // of the latents
        std::unique_ptr<Plan> plan;
        ggml_tensor *pixels, *latents;
    };
    Built build(std::array<int64_t, 3> shape, Trace* trace) const;

    Workspace& workspace_;
    VideoVaeConfig config_;
    Weights weights_;
    std::shared_ptr<const std::vector<float>> mean_, std_;
    Conv3d conv_in_, conv_out_;
    std::vector<DownBlock> down_blocks_;
};

}  // namespace sdltx
