#include "audio_vae.h"

#include "geometry.h"

namespace sdltx {

namespace {

constexpr float pixel_norm_eps = 1e-6f;
constexpr std::array<int, 3> kernel = {3, 1, 3};  // time, -, mel
const ConvOptions in_float32{/*out_axes=*/{}, /*exact=*/true};

ggml_tensor* conv(Plan& g, const Conv3d& c, ggml_tensor* x, ggml_tensor* residual = nullptr) {
    return conv3d(g, c, x, TimePadding::causal_zeros, residual);
}

ggml_tensor* norm_silu(Plan& g, ggml_tensor* x) { return ggml_silu(g.ctx(), rms_norm(g, x, nullptr, pixel_norm_eps)); }

AudioResBlock declare_block(Weights& weights, const std::string& name, int64_t in, int64_t out) {
    AudioResBlock b;
    b.conv1 = declare_conv3d(weights, name + "conv1.conv", in, out, kernel, in_float32);
    b.conv2 = declare_conv3d(weights, name + "conv2.conv", out, out, kernel, in_float32);
    if (in != out) b.nin_shortcut = declare_conv3d(weights, name + "nin_shortcut.conv", in, out, {1, 1, 1}, in_float32);
    return b;
}

ggml_tensor* res_block(Plan& g, const AudioResBlock& b, ggml_tensor* x) {
    ggml_tensor* h = conv(g, b.conv1, norm_silu(g, x));
    return conv(g, b.conv2, norm_silu(g, h), b.nin_shortcut.w ? conv(g, b.nin_shortcut, x) : x);
}

// Every second frame from the first, and every second bin from the second: what a stride of two leaves of a convolution
// that is padded by one bin on each side and by two frames before.
ggml_tensor* every_second(Plan& g, ggml_tensor* x) {
    ggml_tensor* y = ggml_view_4d(g.ctx(), x, x->ne[0], x->ne[1] / 2, 1, (x->ne[3] + 1) / 2, 2 * x->nb[1], x->nb[2],
                                  2 * x->nb[3], x->nb[1]);
    return ggml_cont(g.ctx(), y);
}

}  // namespace

AudioDecoder::AudioDecoder(const ModelFiles& files, Workspace& workspace, const AudioVaeConfig& config)
    : workspace_(workspace), config_(config), weights_(files, workspace.backend(), "audio VAE", "audio_vae.") {
    auto declare = [&](const std::string& name, int64_t in, int64_t out) {
        return declare_conv3d(weights_, name, in, out, kernel, in_float32);
    };
    const int64_t features = config.latent_channels * config.latent_bins;
    mean_ = weights_.host("per_channel_statistics.mean-of-means", {features});
    std_ = weights_.host("per_channel_statistics.std-of-means", {features});
    int64_t width = config.ch * config.ch_mult.back();
    conv_in_ = declare("decoder.conv_in.conv", config.latent_channels, width);
    mid_1_ = declare_block(weights_, "decoder.mid.block_1.", width, width);
    mid_2_ = declare_block(weights_, "decoder.mid.block_2.", width, width);
    up_.resize(config.ch_mult.size());
    for (size_t level = up_.size(); level-- > 0;) {
        const std::string at = "decoder.up." + std::to_string(level) + ".";
        const int64_t out = config.ch * config.ch_mult[level];
        for (int64_t i = 0; i <= config.num_res_blocks; ++i) {
            up_[level].blocks.push_back(declare_block(weights_, at + "block." + std::to_string(i) + ".", width, out));
            width = out;
        }
        if (level > 0) up_[level].upsample = declare(at + "upsample.conv.conv", width, width);
    }
    conv_out_ = declare("decoder.conv_out.conv", width, config.out_channels);
}

void AudioDecoder::check_latents(const std::vector<int64_t>& shape) const {
    if (shape.size() != 3 || shape[0] != config_.latent_channels || shape[2] != config_.latent_bins)
        throw Error(ErrorCode::invalid_request, "[decode] this model decodes audio latents of (" +
                                                    std::to_string(config_.latent_channels) + ", frames, " +
                                                    std::to_string(config_.latent_bins) + "), got " +
                                                    spell_shape(shape) + "; give the model that they were made with");
    check_audio_latents(shape[1]);
}

Array AudioDecoder::decode(const Array& latents, Trace* trace) const {
    check_latents(latents.shape);
    const int64_t channels = latents.dim(0), frames = latents.dim(1), bins = latents.dim(2);
    std::vector<float> input;
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t m = 0; m < bins; ++m)
            for (int64_t c = 0; c < channels; ++c) {
                const size_t s = static_cast<size_t>(c * bins + m);  // the statistics lie as tokens do
                input.push_back(latents.data[static_cast<size_t>((c * frames + t) * bins + m)] * (*std_)[s] +
                                (*mean_)[s]);
            }

    const auto [plan, z, out] = build(frames, trace);
    Plan& g = *plan;
    g.set(z, input);
    workspace_.run(g);
    const std::vector<float> values = g.get(out);
    const int64_t sides = out->ne[0], mels = out->ne[1], mel_frames = out->ne[3];
    Array mel{{sides, mel_frames, mels}, std::vector<float>(values.size())};
    for (int64_t t = 0; t < mel_frames; ++t)
        for (int64_t m = 0; m < mels; ++m)
            for (int64_t s = 0; s < sides; ++s)
                mel.data[static_cast<size_t>((s * mel_frames + t) * mels + m)] =
                    values[static_cast<size_t>((t * mels + m) * sides + s)];
    return mel;
}

MemoryUse AudioDecoder::measure(int64_t frames) const {
    const Built b = build(frames, nullptr);
    MemoryUse use = workspace_.measure_all(*b.plan);
    use.host += ggml_nbytes(b.latents) + 2 * ggml_nbytes(b.mel);
    return use;
}

AudioDecoder::Built AudioDecoder::build(int64_t frames, Trace* trace) const {
    Built b{std::make_unique<Plan>(workspace_.backend(), "audio VAE", trace), nullptr, nullptr};
    Plan& g = *b.plan;
    ggml_context* ctx = g.ctx();
    b.latents = g.input("latents", GGML_TYPE_F32, {config_.latent_channels, config_.latent_bins, 1, frames});
    ggml_tensor* x = g.stage(conv(g, conv_in_, b.latents), "audio_vae.decoder.conv_in");
    x = g.stage(res_block(g, mid_1_, x), "audio_vae.decoder.mid.block_1");
    x = g.stage(res_block(g, mid_2_, x), "audio_vae.decoder.mid.block_2");
    for (size_t level = up_.size(); level-- > 0;) {
        for (auto& block : up_[level].blocks) x = res_block(g, block, x);
        if (level == 0) break;
        x = ggml_interpolate(ctx, x, x->ne[0], 2 * x->ne[1], 1, 2 * x->ne[3], GGML_SCALE_MODE_NEAREST);
        x = conv(g, up_[level].upsample, x);
        // The first latent frame stands for a single mel frame of its level.
        x = ggml_view_4d(ctx, x, x->ne[0], x->ne[1], 1, x->ne[3] - 1, x->nb[1], x->nb[2], x->nb[3], x->nb[3]);
        g.stage(x, "audio_vae.decoder.up." + std::to_string(level) + ".upsample");
    }
    x = g.stage(conv(g, conv_out_, norm_silu(g, x)), "audio_vae.decoder.mel");
    b.mel = g.output(x, "audio_vae.decoder.mel");
    return b;
}

AudioEncoder::AudioEncoder(const ModelFiles& files, Workspace& workspace, const AudioVaeConfig& config)
    : workspace_(workspace), config_(config), weights_(files, workspace.backend(), "audio VAE encoder", "audio_vae.") {
    const auto declare = [&](const std::string& name, int64_t in, int64_t out) {
        return declare_conv3d(weights_, name, in, out, kernel, in_float32);
    };
    const int64_t features = config.latent_channels * config.latent_bins;
    mean_ = weights_.host("per_channel_statistics.mean-of-means", {features});
    std_ = weights_.host("per_channel_statistics.std-of-means", {features});
    int64_t width = config.ch;
    conv_in_ = declare("encoder.conv_in.conv", config.out_channels, width);
    for (size_t level = 0; level < config.ch_mult.size(); ++level) {
        const std::string at = "encoder.down." + std::to_string(level) + ".";
        const int64_t out = config.ch * config.ch_mult[level];
        Level& l = down_.emplace_back();
        for (int64_t i = 0; i < config.num_res_blocks; ++i) {
            l.blocks.push_back(declare_block(weights_, at + "block." + std::to_string(i) + ".", width, out));
            width = out;
        }
        if (level + 1 < config.ch_mult.size()) l.downsample = declare(at + "downsample.conv", width, width);
    }
    mid_1_ = declare_block(weights_, "encoder.mid.block_1.", width, width);
    mid_2_ = declare_block(weights_, "encoder.mid.block_2.", width, width);
    conv_out_ = declare("encoder.conv_out.conv", width, 2 * config.latent_channels);
}

AudioEncoder::Built AudioEncoder::build(int64_t frames, Trace* trace) const {
    Built b{std::make_unique<Plan>(workspace_.backend(), "audio VAE encoder", trace), nullptr, nullptr};
    Plan& g = *b.plan;
    b.mel = g.input("mel", GGML_TYPE_F32, {config_.out_channels, config_.mel_bins, 1, frames});
    ggml_tensor* x = g.stage(conv(g, conv_in_, b.mel), "audio_vae.encoder.conv_in");
    for (size_t level = 0; level < down_.size(); ++level) {
        for (auto& block : down_[level].blocks) x = res_block(g, block, x);
        if (!down_[level].downsample.w) continue;
        x = every_second(g, conv(g, down_[level].downsample, x));
        g.stage(x, "audio_vae.encoder.down." + std::to_string(level) + ".downsample");
    }
    x = g.stage(res_block(g, mid_1_, x), "audio_vae.encoder.mid.block_1");
    x = g.stage(res_block(g, mid_2_, x), "audio_vae.encoder.mid.block_2");
    x = g.stage(conv(g, conv_out_, norm_silu(g, x)), "audio_vae.encoder.conv_out");
    b.latents = g.output(x, "audio_vae.encoder.conv_out");
    return b;
}

MemoryUse AudioEncoder::measure(int64_t frames) const {
    const Built b = build(frames, nullptr);
    return workspace_.measure_all(*b.plan);
}

Array AudioEncoder::encode(const Array& mel, Trace* trace) const {
    if (mel.shape.size() != 3 || mel.dim(0) != config_.out_channels || mel.dim(2) != config_.mel_bins || mel.dim(1) < 1)
        throw Error(ErrorCode::invalid_request,
                    "[sound] the audio VAE encodes spectrograms of (" + std::to_string(config_.out_channels) +
                        ", frames, " + std::to_string(config_.mel_bins) + "), got " + spell_shape(mel.shape));
    const int64_t sides = mel.dim(0), frames = mel.dim(1), bins = mel.dim(2);
    std::vector<float> input;
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t m = 0; m < bins; ++m)
            for (int64_t s = 0; s < sides; ++s)
                input.push_back(mel.data[static_cast<size_t>((s * frames + t) * bins + m)]);

    const Built b = build(frames, trace);
    b.plan->set(b.mel, input);
    workspace_.run(*b.plan);
    const ggml_tensor* out = b.latents;
    const std::vector<float> values = b.plan->get(out);
    const int64_t channels = config_.latent_channels, both = out->ne[0], cells = out->ne[1], length = out->ne[3];
    Array latents{{channels, length, cells}, {}};
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < length; ++t)
            for (int64_t m = 0; m < cells; ++m) {
                const auto s = static_cast<size_t>(c * cells + m);  // the statistics lie as tokens do
                latents.data.push_back((values[static_cast<size_t>((t * cells + m) * both + c)] - (*mean_)[s]) /
                                       (*std_)[s]);
            }
    return latents;
}

}  // namespace sdltx
