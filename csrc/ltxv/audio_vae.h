// The audio VAE of LTX-2 (audio.md section 3; ltx-core AudioEncoder and AudioDecoder): log-mel spectrograms to latents,
// and back. Time runs along the frames of the volumes, mel bins along their width.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "config.h"
#include "ggml/conv3d.h"
#include "ggml/workspace.h"

namespace sdltx {

struct AudioResBlock {
    Conv3d conv1, conv2, nin_shortcut;
};

class AudioDecoder {
 public:
    AudioDecoder(const ModelFiles& files, Workspace& workspace, const AudioVaeConfig& config);

    Weights& weights() { return weights_; }

    // latents (C, T, bins), normalised -> natural-log mel spectrogram (2, 4 (T - 1) + 1, 64). Causal in time.
    // Stages: "audio_vae.decoder.conv_in", ".mid.block_1", ".mid.block_2", ".up.<level>.upsample".
    Array decode(const Array& latents, Trace* trace) const;
    // Throws Error(invalid_request) for latents that this model does not decode.
    void check_latents(const std::vector<int64_t>& shape) const;
    // What it takes for so many latent frames.
    MemoryUse measure(int64_t frames) const;

 private:
    struct Level {
        std::vector<AudioResBlock> blocks;
        Conv3d upsample;
    };
    struct Built {
        std::unique_ptr<Plan> plan;
        ggml_tensor *latents, *mel;
    };
    Built build(int64_t frames, Trace* trace) const;

    Workspace& workspace_;
    AudioVaeConfig config_;
    Weights weights_;
    std::shared_ptr<const std::vector<float>> mean_, std_;
    Conv3d conv_in_, conv_out_;
    AudioResBlock mid_1_, mid_2_;
    std::vector<Level> up_;  // by level; walked from the highest down
};

class AudioEncoder {
 public:
    AudioEncoder(const ModelFiles& files, Workspace& workspace, const AudioVaeConfig& config);

    Weights& weights() { return weights_; }

    // Natural-log mel spectrogram (2, frames, bins) -> the mean of the latents (C, T, bins / 4), normalised;
    // T = ceil(ceil(frames / 2) / 2). Causal in time. Stages: "audio_vae.encoder.conv_in", ".down.<level>.downsample",
    // ".mid.block_1", ".mid.block_2", ".conv_out". Throws Error(invalid_request) for another number of channels or
    // bins.
    Array encode(const Array& mel, Trace* trace) const;
    // What it takes for so many frames of a spectrogram.
    MemoryUse measure(int64_t frames) const;

 private:
    struct Level {
        std::vector<AudioResBlock> blocks;
        Conv3d downsample;
    };
    struct Built {
        std::unique_ptr<Plan> plan;
        ggml_tensor *mel, *latents;  // means, then variances, [2 C, bins, 1, T]
    };
    Built build(int64_t frames, Trace* trace) const;

    Workspace& workspace_;
    AudioVaeConfig config_;
    Weights weights_;
    std::shared_ptr<const std::vector<float>> mean_, std_;
    Conv3d conv_in_, conv_out_;
    AudioResBlock mid_1_, mid_2_;
    std::vector<Level> down_;
};

}  // namespace sdltx
