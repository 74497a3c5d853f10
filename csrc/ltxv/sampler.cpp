#include "sampler.h"

#include <algorithm>
#include <cmath>

#include "schedule.h"

namespace sdltx {

namespace {

constexpr int64_t max_pixels = 16384, max_frames = 1 << 16, max_tokens = 1 << 20;

// "480 or 512" for 500 and unit 32.
std::string nearest(int64_t value, int64_t unit, int64_t offset) {
    const int64_t below = (value - offset) / unit * unit + offset, above = below + unit;
    return below > 0 ? std::to_string(below) + " or " + std::to_string(above) : std::to_string(above);
}

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

Geometry latent_geometry(int64_t width, int64_t height, int64_t num_frames, double frame_rate) {
    auto bad = [](const std::string& text) { throw Error(ErrorCode::invalid_request, "[sample] " + text); };
    auto side = [&](const char* name, int64_t n) {
        if (n < 32 || n > max_pixels)
            bad(std::string(name) + " " + std::to_string(n) + " is not between 32 and " + std::to_string(max_pixels));
        if (n % 32)
            bad(std::string(name) + " " + std::to_string(n) + " is not a multiple of 32; use " + nearest(n, 32, 0));
    };
    side("width", width);
    side("height", height);
    if (num_frames < 1 || num_frames > max_frames)
        bad("the number of frames " + std::to_string(num_frames) + " is not between 1 and " +
            std::to_string(max_frames));
    if ((num_frames - 1) % 8)
        bad("the number of frames " + std::to_string(num_frames) + " is not 8k + 1; use " + nearest(num_frames, 8, 1));
    if (!(frame_rate > 0 && frame_rate <= 1000))
        bad("the frame rate must be above 0 and at most 1000 frames per second");
    // 25 latent frames of sound per second, rounded half to even.
    const double audio = std::nearbyint(static_cast<double>(num_frames) / frame_rate * 25.0);
    if (audio < 1)
        bad("the clip is too short for sound: " + std::to_string(num_frames) +
            " frames at this rate last less than 1/50 second; use more frames or a lower rate");
    if (audio > max_frames) bad("the clip would last over 43 minutes; use fewer frames or a higher rate");
    const Geometry g{(num_frames - 1) / 8 + 1, height / 32, width / 32, static_cast<int64_t>(audio), frame_rate};
    if (g.frames * g.height * g.width > max_tokens)
        bad("the clip has " + std::to_string(g.frames * g.height * g.width) + " latent cells, at most " +
            std::to_string(max_tokens) + " are possible; use a smaller size or fewer frames");
    return g;
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

Sampler::Sampler(Transformer& transformer, const Context& context, StreamState video, StreamState audio,
                 std::vector<float> sigmas, Trace* trace)
    : transformer_(transformer),
      context_(context),
      video_(std::move(video)),
      audio_(std::move(audio)),
      sigmas_(std::move(sigmas)),
      trace_(trace) {
    check_sigmas(sigmas_);
}

std::vector<float> Sampler::advance(StreamState& s, const std::vector<float>& velocity,
                                    const std::vector<float>& timesteps, const char* name) const {
    const float sigma = sigmas_[static_cast<size_t>(index_)], next = sigmas_[static_cast<size_t>(index_) + 1];
    std::vector<float> denoised(velocity.size());
    for (size_t i = 0; i < velocity.size(); ++i) {
        if (!std::isfinite(velocity[i]))
            throw Error(ErrorCode::backend,
                        "[denoise] step " + std::to_string(index_ + 1) + " of " + std::to_string(num_steps()) +
                            " gave " + name +
                            " values that are not finite; check the model files, or try precision f32");
        const size_t token = i / static_cast<size_t>(s.channels);
        const float x0 = s.latent[i] - timesteps[token] * velocity[i];
        denoised[i] = x0 * s.mask[token] + s.clean[i] * (1 - s.mask[token]);
        s.latent[i] += (s.latent[i] - denoised[i]) / sigma * (next - sigma);
    }
    return denoised;
}

void Sampler::step() {
    const float sigma = sigmas_[static_cast<size_t>(index_)];
    const auto video_timesteps = timesteps_of(video_, sigma), audio_timesteps = timesteps_of(audio_, sigma);
    const ModalityInput video{&video_.latent, &video_timesteps, &video_.positions, &context_.video, sigma};
    const ModalityInput audio{&audio_.latent, &audio_timesteps, &audio_.positions, &context_.audio, sigma};
    const Velocity v = transformer_.velocity(video, &audio, {}, trace_);
    video_denoised_ = advance(video_, v.video, video_timesteps, "video");
    audio_denoised_ = advance(audio_, v.audio, audio_timesteps, "audio");
    ++index_;
}

}  // namespace sdltx
