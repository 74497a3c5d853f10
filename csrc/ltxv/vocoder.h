// From a log-mel spectrogram to stereo (audio.md sections 4 and 5; ltx-core Vocoder and VocoderWithBWE). LTX-2.3: a
// BigVGAN-style generator to 16 kHz, and a second one that adds what lies above 8 kHz, 48 kHz in all. LTX-2.0: one in
// the style of HiFi-GAN to 24 kHz. Everything in float32: in half precision the spectrum suffers audibly.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "config.h"
#include "ggml/conv3d.h"
#include "ggml/workspace.h"

namespace sdltx {

// A generator: mel frames in, `hop` samples each out. Works through long input in pieces that overlap by its field of
// view, so that time and memory stay linear and the pieces meet without a seam.
class Generator {
 public:
    // path: "vocoder.", "bwe_generator.", or "" (LTX-2.0).
    Generator(Weights& weights, Workspace& workspace, std::string path, const GeneratorConfig& config,
              int64_t in_channels);

    // mel (2, frames, bins) -> samples (2, frames * hop). piece_frames: frames per piece, 0 = all at once; `on_piece`
    // is called after each.
    Array run(const Array& mel, int64_t piece_frames, Trace* trace, const std::function<void()>& on_piece) const;
    int64_t hop() const { return hop_; }
    // What it takes for a piece of a spectrogram of so many frames.
    MemoryUse measure(int64_t frames, int64_t piece_frames) const;

 private:
    // Snake with per-channel frequency and weight, run at twice the rate between two 12-tap filters against aliasing.
    struct Activation {
        ggml_tensor *frequency, *weight;                     // e^alpha, 1 / (e^beta + 1e-9)
        std::shared_ptr<const std::vector<float>> up, down;  // taps
    };
    struct ResBlock {  // AMPBlock1 or ResBlock1
        std::vector<Conv3d> convs1, convs2;
        std::vector<Activation> acts1, acts2;  // none in the style of HiFi-GAN
        std::vector<int> dilations;
    };
    // A transposed convolution as one matrix product: [taps * C_in, stride * C_out].
    struct Upsample {
        ggml_tensor *w, *b;
        int stride, taps, padding;
    };
    Activation declare_activation(Weights& weights, const std::string& name, int64_t channels);
    Upsample declare_upsample(Weights& weights, const std::string& name, int64_t in, int64_t out, int kernel,
                              int stride);
    ggml_tensor* activate(Plan& g, const Activation& a, ggml_tensor* x) const;
    ggml_tensor* activate(Plan& g, const std::vector<Activation>& acts, size_t index, ggml_tensor* x) const;
    ggml_tensor* upsample(Plan& g, const Upsample& u, ggml_tensor* x) const;
    ggml_tensor* build(Plan& g, ggml_tensor* mel) const;

    Workspace& workspace_;
    std::string path_;
    bool hifi_gan_;
    int64_t in_channels_, hop_ = 1;
    int64_t context_;  // mel frames on each side that a sample depends on, at most
    Conv3d conv_pre_, conv_post_;
    std::vector<Upsample> ups_;
    std::vector<ResBlock> resblocks_;  // per stage, one per kernel size
    size_t blocks_per_stage_;
    Activation act_post_;
};

class Vocoder {
 public:
    Vocoder(const ModelFiles& files, Workspace& workspace, const VocoderConfig& config, int64_t mel_bins);

    Weights& weights() { return weights_; }

    // mel (2, frames, bins) -> samples in [-1, 1], (2, 480 frames) at 48 kHz or (2, 240 frames) at 24 kHz.
    // `piece_seconds` bounds the memory; `on_piece` is called pieces() times. Stages: "vocoder.*" by module path, of
    // the last piece.
    Waveform synthesise(const Array& mel, double piece_seconds, const std::function<void()>& on_piece,
                        Trace* trace) const;
    int64_t pieces(int64_t frames, double piece_seconds) const;
    // What it takes for a spectrogram of so many frames, and for all that it becomes.
    MemoryUse measure(int64_t frames, double piece_seconds) const;

 private:
    struct LogMel {
        std::unique_ptr<Plan> plan;
        ggml_tensor *windows, *mel;
    };
    LogMel build_log_mel(int64_t frames) const;
    Array log_mel(const Array& wave) const;

    Workspace& workspace_;
    VocoderConfig config_;
    Weights weights_;
    Generator vocoder_;
    std::optional<Generator> bwe_;
    ggml_tensor *forward_basis_ = nullptr, *mel_basis_ = nullptr;
};

// Band-limited upsampling by 3 with a 43-tap windowed sinc, (channels, n) -> (channels, 3 n).
Array resample_3x(const Array& wave);

}  // namespace sdltx
