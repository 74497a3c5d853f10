// The audio VAE of LTX-2.3 (audio.md section 3; ltx-core AudioDecoder): latents to a log-mel spectrogram.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config.h"
#include "ggml/conv3d.h"
#include "ggml/workspace.h"
#include "types.h"

namespace sdltx {

class AudioDecoder {
 public:
    AudioDecoder(const ModelFiles& files, Workspace& workspace, const AudioVaeConfig& config);

    Weights& weights() { return weights_; }

    // latents (C, T, bins), normalised -> natural-log mel spectrogram (2, 4 (T - 1) + 1, 64). Causal in time.
    // Stages: "audio_vae.decoder.conv_in", ".mid.block_1", ".mid.block_2", ".up.<level>.upsample".
    Array decode(const Array& latents, Trace* trace) const;
    // Throws Error(invalid_request) for latents that this model does not decode.
    void check_latents(const std::vector<int64_t>& shape) const;

 private:
    // Time runs along the frames of the volumes, mel bins along their width.
    struct ResBlock {
        Conv3d conv1, conv2, nin_shortcut;
    };
    struct Level {
        std::vector<ResBlock> blocks;
        Conv3d upsample;
    };
    ResBlock declare_block(const std::string& name, int64_t in, int64_t out);
    ggml_tensor* res_block(Plan& g, const ResBlock& b, ggml_tensor* x) const;

    Workspace& workspace_;
    AudioVaeConfig config_;
    Weights weights_;
    std::shared_ptr<const std::vector<float>> mean_, std_;
    Conv3d conv_in_, conv_out_;
    ResBlock mid_1_, mid_2_;
    std::vector<Level> up_;  // by level; walked from the highest down
};

}  // namespace sdltx
