// From noise to latents: the denoising loop over both streams (sampling.md sections 1 and 3; ltx-pipelines samplers).
#pragma once

#include <string>
#include <vector>

#include "geometry.h"
#include "transformer_run.h"
#include "types.h"

namespace sdltx {

// One stream on its way. Tokens (T, C).
struct StreamState {
    int64_t num_tokens = 0, channels = 0;
    std::vector<float> latent;  // noisy, x at the current sigma
    std::vector<float> clean;   // what conditioned tokens are held at
    std::vector<float> mask;    // (T): 1 = denoise freely, 0 = keep clean
    Positions positions;

    // latent = sigma noise + (1 - sigma) latent, conditioned tokens blended with clean by the mask.
    void add_noise(const std::vector<float>& noise, float noise_scale);
};

// An unconditioned stream of zeros.
StreamState empty_stream(int64_t channels, Positions positions);

// Video (C, F', H', W') <-> tokens (F'*H'*W', C); audio (C, T, mel) <-> tokens (T, C*mel).
std::vector<float> video_to_tokens(const Array& latents);
Array tokens_to_video(const std::vector<float>& tokens, int64_t channels, const Geometry& geometry);
std::vector<float> audio_to_tokens(const Array& latents);
Array tokens_to_audio(const std::vector<float>& tokens, int64_t channels, int64_t mel_bins, int64_t frames);

// Euler steps of the rectified flow. `contexts` must outlive the sampler.
class Sampler {
 public:
    Sampler(Transformer& transformer, Workspace& workspace, const Context& context, StreamState video,
            StreamState audio, std::vector<float> sigmas, Trace* trace);

    int64_t num_steps() const { return static_cast<int64_t>(sigmas_.size()) - 1; }
    int64_t index() const { return index_; }
    bool done() const { return index_ == num_steps(); }
    // x0 = x - tau v, blended with clean; x += (x - x0) / sigma * (sigma_next - sigma). Throws Error(backend) that
    // names the step when a value is not finite, and Error(invalid_request) when done(). `on_block` is called after
    // every block of the transformer with how many of the step are done; when it throws, the step has not been.
    void step(const TransformerRun::OnBlock& on_block = {});

    const StreamState& video() const { return video_; }
    const StreamState& audio() const { return audio_; }
    // Clean estimates of the last step, tokens.
    const std::vector<float>& video_denoised() const { return video_denoised_; }
    const std::vector<float>& audio_denoised() const { return audio_denoised_; }

 private:
    struct Advanced {
        std::vector<float> latent, denoised;
    };
    Advanced advance(const StreamState& s, const std::vector<float>& velocity, const std::vector<float>& timesteps,
                     const char* name) const;

    StreamState video_, audio_;
    std::vector<float> sigmas_, video_denoised_, audio_denoised_;
    int64_t index_ = 0;
    TransformerRun run_;
};

}  // namespace sdltx
