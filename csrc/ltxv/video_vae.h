// The video VAE of LTX-2 (video_vae.md; ltx-core VideoDecoder): latents to pixels.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "config.h"
#include "ggml/workspace.h"
#include "tiling.h"
#include "video_vae_blocks.h"

namespace sdltx {

class VideoDecoder {
 public:
    VideoDecoder(const ModelFiles& files, Workspace& workspace, const VideoVaeConfig& config);

    Weights& weights() { return weights_; }

    // Receives finished frames in order: RGB (frames, height, width, 3), nominally in [-1, 1].
    using Sink = std::function<void(const Array& frames)>;
    // latents (C, F', H', W'), normalised -> 8 (F' - 1) + 1 frames of 32 H' x 32 W'. Overlapping tiles are blended, so
    // the result depends on `tiling` wherever a tile's border is within the decoder's reach. Throws
    // Error(invalid_request) for a tiling that does not advance. Stages: "vae.decoder.conv_in",
    // "vae.decoder.up_blocks.<i>" of the last tile.
    void decode(const Array& latents, const Tiling& tiling, const Sink& sink, const Progress& progress,
                Trace* trace) const;
    // Throws Error(invalid_request) for latents that this model does not decode.
    void check_latents(const std::vector<int64_t>& shape) const;
    // What it takes with the largest tile of latents with this shape (F', H', W').
    MemoryUse measure(std::array<int64_t, 3> shape, const Tiling& tiling) const;

 private:
    struct UpBlock {
        std::vector<VideoResBlock> res_blocks;  // of a res_x
        Conv3d conv;                            // of a compress block
        std::array<int, 3> stride{};            // (time, height, width)
        int64_t repeat = 0;  // LTX-2.0: how often the channels of what went in are added to what comes out
    };
    struct Built {
        std::array<int64_t, 3> shape;
        std::unique_ptr<Plan> plan;
        ggml_tensor *latents, *frames;
    };
    Built build(std::array<int64_t, 3> shape, Trace* trace) const;  // for latents of this shape
    int64_t frames_at_a_time(int64_t height, int64_t width) const;

    Workspace& workspace_;
    VideoVaeConfig config_;
    Weights weights_;
    std::shared_ptr<const std::vector<float>> mean_, std_;
    Conv3d conv_in_, conv_out_;
    std::vector<UpBlock> up_blocks_;
};

// (x + 1) / 2 of finished frames, clamped, as bytes; truncated as the reference does. Throws Error(backend) for values
// that are not finite.
SDLTX_EXPORT Frames to_bytes(const Array& frames);

}  // namespace sdltx
