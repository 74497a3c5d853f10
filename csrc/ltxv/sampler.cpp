#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "schedule.h"

namespace sdltx {

namespace {

std::vector<float> timesteps_of(const StreamState& s, float sigma) {
    std::vector<float> t(s.mask);
    for (float& v : t) v *= sigma;
    return t;
}

}  // namespace

void StreamState::add_noise(const std::vector<float>& noise, float noise_scale) {
    for (size_t i = 0; i < latent.size(); ++i) {
        const float m = mask[i / static_cast<size_t>(channels)];
        const float noisy = (1 - noise_scale) * latent[i] + noise_scale * noise[i];
        latent[i] = (1 - m) * clean[i] + m * noisy;
    }
}

StreamState empty_stream(int64_t channels, Positions positions) {
    StreamState s;
    s.num_tokens = positions.tokens;
    s.channels = channels;
    s.latent.assign(static_cast<size_t>(s.num_tokens * channels), 0.0f);
    s.clean = s.latent;
    s.mask.assign(static_cast<size_t>(s.num_tokens), 1.0f);
    s.positions = std::move(positions);
    return s;
}

std::vector<float> video_to_tokens(const Array& a) {
    const int64_t channels = a.dim(0), tokens = a.dim(1) * a.dim(2) * a.dim(3);
    std::vector<float> out(a.data.size());
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < tokens; ++t)
            out[static_cast<size_t>(t * channels + c)] = a.data[static_cast<size_t>(c * tokens + t)];
    return out;
}

Array tokens_to_video(const std::vector<float>& tokens, int64_t channels, const Geometry& g) {
    const int64_t count = g.frames * g.height * g.width;
    Array a{{channels, g.frames, g.height, g.width}, std::vector<float>(static_cast<size_t>(channels * count))};
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < count; ++t)
            a.data[static_cast<size_t>(c * count + t)] = tokens[static_cast<size_t>(t * channels + c)];
    return a;
}

std::vector<float> audio_to_tokens(const Array& a) {
    const int64_t channels = a.dim(0), frames = a.dim(1), bins = a.dim(2);
    std::vector<float> out;
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t c = 0; c < channels; ++c) {
            const auto row = a.data.begin() + (c * frames + t) * bins;
            out.insert(out.end(), row, row + bins);
        }
    return out;
}

Array tokens_to_audio(const std::vector<float>& tokens, int64_t channels, int64_t bins, int64_t frames) {
    Array a{{channels, frames, bins}, std::vector<float>(static_cast<size_t>(channels * frames * bins))};
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t c = 0; c < channels; ++c)
            std::copy_n(tokens.begin() + (t * channels + c) * bins, bins, a.data.begin() + (c * frames + t) * bins);
    return a;
}

Sampler::Sampler(Transformer& transformer, Workspace& workspace, const Context& context, StreamState video,
                 StreamState audio, std::vector<float> sigmas, Trace* trace)
    : video_(std::move(video)),
      audio_(std::move(audio)),
      sigmas_(std::move(sigmas)),
      run_(transformer, workspace, video_.positions, &audio_.positions, {{&context.video, &context.audio, {}}}, trace) {
    check_sigmas(sigmas_);
}

Sampler::Advanced Sampler::advance(const StreamState& s, const std::vector<float>& velocity,
                                   const std::vector<float>& timesteps, const char* name) const {
    const float sigma = sigmas_[static_cast<size_t>(index_)], next = sigmas_[static_cast<size_t>(index_) + 1];
    Advanced a{s.latent, std::vector<float>(velocity.size())};
    for (size_t i = 0; i < velocity.size(); ++i) {
        if (!std::isfinite(velocity[i]))
            throw Error(ErrorCode::backend,
                        "[denoise] step " + std::to_string(index_ + 1) + " of " + std::to_string(num_steps()) +
                            " gave " + name +
                            " values that are not finite; check the model files, or try precision f32");
        const size_t token = i / static_cast<size_t>(s.channels);
        const float x0 = s.latent[i] - timesteps[token] * velocity[i];
        a.denoised[i] = x0 * s.mask[token] + s.clean[i] * (1 - s.mask[token]);
        a.latent[i] += (s.latent[i] - a.denoised[i]) / sigma * (next - sigma);
    }
    return a;
}

void Sampler::step(const TransformerRun::OnBlock& on_block) {
    if (done())
        throw Error(ErrorCode::invalid_request,
                    "[denoise] all " + std::to_string(num_steps()) + " steps are done; start a new run");
    const float sigma = sigmas_[static_cast<size_t>(index_)];
    const auto video_timesteps = timesteps_of(video_, sigma), audio_timesteps = timesteps_of(audio_, sigma);
    const StreamInput video{&video_.latent, &video_timesteps, sigma}, audio{&audio_.latent, &audio_timesteps, sigma};
    const Velocity v = std::move(run_.velocities(video, &audio, on_block).front());
    // Both or none: a step that fails leaves the streams at the same place.
    Advanced next_video = advance(video_, v.video, video_timesteps, "video");
    Advanced next_audio = advance(audio_, v.audio, audio_timesteps, "audio");
    video_.latent = std::move(next_video.latent);
    audio_.latent = std::move(next_audio.latent);
    video_denoised_ = std::move(next_video.denoised);
    audio_denoised_ = std::move(next_audio.denoised);
    ++index_;
}

}  // namespace sdltx
