#include "vocoder.h"

#include <algorithm>
#include <cmath>

#include "ggml/cpu_kernels.h"

namespace sdltx {

namespace {

constexpr int filter_taps = 12;
constexpr float leak = 0.1f, last_leak = 0.01f;  // of HiFi-GAN's leaky ReLUs; the last one has its framework's default

// [C, T] shifted views: columns [first, first + n) of x.
ggml_tensor* columns(Plan& g, ggml_tensor* x, int64_t first, int64_t n) {
    return ggml_view_2d(g.ctx(), x, x->ne[0], n, x->nb[1], static_cast<size_t>(first) * x->nb[1]);
}

ggml_tensor* repeat_column(Plan& g, ggml_tensor* x, int64_t at, int64_t n) {
    return ggml_repeat_4d(g.ctx(), columns(g, x, at, 1), x->ne[0], n, 1, 1);
}

// before | x | after along time. Written into place, as padding and joining are slow on CPUs and limited to 65,535
// columns on GPUs.
ggml_tensor* join(Plan& g, ggml_tensor* before, ggml_tensor* x, ggml_tensor* after) {
    ggml_tensor* y = pad_width(g, x, before->ne[1], after->ne[1]);
    y = g.after(y, ggml_cpy(g.ctx(), before, columns(g, y, 0, before->ne[1])));
    return g.after(y, ggml_cpy(g.ctx(), after, columns(g, y, before->ne[1] + x->ne[1], after->ne[1])));
}

// sum over i of taps[first + 2 i] * x[:, t + offset(i)] for n columns.
template <typename Offset>
ggml_tensor* filter(Plan& g, ggml_tensor* x, const std::vector<float>& taps, int first, float gain, int64_t n,
                    Offset offset) {
    ggml_tensor* sum = nullptr;
    // They are not there when the plan is only measured.
    const auto tap = [&](int i) { return taps.empty() ? 1.0f : taps[static_cast<size_t>(i)]; };
    for (int i = 0; i < filter_taps / 2; ++i) {
        ggml_tensor* term = ggml_scale(g.ctx(), columns(g, x, offset(i), n), gain * tap(first + 2 * i));
        sum = sum ? ggml_add_inplace(g.ctx(), sum, term) : term;
    }
    return sum;
}

// Zero padded convolution along time of [C, T], plus `residual` unless null. Dilated: each of the d interleaved
// sequences is convolved on its own.
ggml_tensor* conv1d(Plan& g, const Conv3d& c, ggml_tensor* x, int dilation, ggml_tensor* residual = nullptr) {
    ggml_context* ctx = g.ctx();
    const int64_t length = x->ne[1];
    if (dilation == 1) {
        x = conv3d(g, c, ggml_reshape_4d(ctx, x, x->ne[0], length, 1, 1), TimePadding::replicate, residual);
        return ggml_reshape_2d(ctx, x, x->ne[0], length);
    }
    if (can_dilate(g, c, x, residual)) return dilated_conv1d(g, c, x, dilation, residual);
    const int64_t rows = (length + dilation - 1) / dilation;
    x = pad_width(g, x, 0, rows * dilation - length);
    x = ggml_permute(ctx, ggml_reshape_3d(ctx, x, x->ne[0], dilation, rows), 0, 2, 1, 3);
    x = ggml_reshape_4d(ctx, ggml_cont(ctx, x), x->ne[0], rows, 1, dilation);
    x = conv3d(g, c, x, TimePadding::replicate);
    x = ggml_cont(ctx, ggml_permute(ctx, ggml_reshape_3d(ctx, x, x->ne[0], rows, dilation), 0, 2, 1, 3));
    x = columns(g, ggml_reshape_2d(ctx, x, x->ne[0], rows * dilation), 0, length);
    return residual ? ggml_add(ctx, residual, x) : x;
}

Conv3d declare_conv1d(Weights& weights, const std::string& name, int64_t in, int64_t out, int kernel,
                      bool bias = true) {
    return declare_conv3d(weights, name, in, out, {1, 1, kernel}, {{}, /*exact=*/true, bias});
}

}  // namespace

Generator::Generator(Weights& weights, Workspace& workspace, std::string path, const GeneratorConfig& c,
                     int64_t in_channels)
    : workspace_(workspace),
      path_(std::move(path)),
      hifi_gan_(c.hifi_gan),
      in_channels_(in_channels),
      blocks_per_stage_(c.resblock_kernel_sizes.size()) {
    constexpr int pre = 7, post = 7;
    // Samples on each side: 3 of the upsampling filter, 3 of the other.
    const double activation_reach = hifi_gan_ ? 0 : 6;
    int64_t width = c.upsample_initial_channel;
    conv_pre_ = declare_conv1d(weights, path_ + "conv_pre", in_channels, width, pre);
    double reach = pre / 2;
    for (size_t i = 0; i < c.upsample_rates.size(); ++i) {
        ups_.push_back(declare_upsample(weights, path_ + "ups." + std::to_string(i), width, width / 2,
                                        c.upsample_kernel_sizes[i], c.upsample_rates[i]));
        width /= 2;
        reach += static_cast<double>(ups_.back().taps) / static_cast<double>(hop_);
        hop_ *= c.upsample_rates[i];
        double widest = 0;
        for (size_t k = 0; k < blocks_per_stage_; ++k) {
            const int kernel = c.resblock_kernel_sizes[k];
            const std::string at = path_ + "resblocks." + std::to_string(i * blocks_per_stage_ + k) + ".";
            ResBlock b;
            b.dilations = c.resblock_dilation_sizes[k];
            double block = 0;
            for (size_t j = 0; j < b.dilations.size(); ++j) {
                const std::string n = std::to_string(j);
                b.convs1.push_back(declare_conv1d(weights, at + "convs1." + n, width, width, kernel));
                b.convs2.push_back(declare_conv1d(weights, at + "convs2." + n, width, width, kernel));
                if (!hifi_gan_) {
                    b.acts1.push_back(declare_activation(weights, at + "acts1." + n, width));
                    b.acts2.push_back(declare_activation(weights, at + "acts2." + n, width));
                }
                block += (kernel / 2) * (b.dilations[j] + 1) + 2 * activation_reach;
            }
            widest = std::max(widest, block);
            resblocks_.push_back(std::move(b));
        }
        reach += widest / static_cast<double>(hop_);
    }
    if (!hifi_gan_) act_post_ = declare_activation(weights, path_ + "act_post", width);
    conv_post_ = declare_conv1d(weights, path_ + "conv_post", width, 2, post, /*bias=*/hifi_gan_);
    reach += (activation_reach + post / 2) / static_cast<double>(hop_);
    context_ = static_cast<int64_t>(std::ceil(reach)) + 1;
}

Generator::Activation Generator::declare_activation(Weights& weights, const std::string& name, int64_t channels) {
    auto exponential = [&](const char* which, bool inverse) {
        return weights.laid_out(name + ".act." + which, {channels}, {channels}, [=](const float* stored, float* laid) {
            for (int64_t i = 0; i < channels; ++i) {
                const double e = std::exp(static_cast<double>(stored[i]));
                laid[i] = static_cast<float>(inverse ? 1.0 / (e + 1e-9) : e);
            }
        });
    };
    return {exponential("alpha", false), exponential("beta", true),
            weights.host(name + ".upsample.filter", {1, 1, filter_taps}),
            weights.host(name + ".downsample.lowpass.filter", {1, 1, filter_taps})};
}

Generator::Upsample Generator::declare_upsample(Weights& weights, const std::string& name, int64_t in, int64_t out,
                                                int kernel, int stride) {
    const int taps = (kernel + stride - 1) / stride;
    // Output stride*q + r takes input q - j through kernel element j*stride + r; the window's first row is j = taps
    // - 1.
    ggml_tensor* w = weights.laid_out(
        name + ".weight", {in, out, kernel}, {taps * in, stride * out}, [=](const float* stored, float* laid) {
            for (int64_t r = 0; r < stride; ++r)
                for (int64_t o = 0; o < out; ++o)
                    for (int64_t j = taps - 1; j >= 0; --j)
                        for (int64_t i = 0; i < in; ++i) {
                            const int64_t k = j * stride + r;
                            *laid++ = k < kernel ? stored[(i * out + o) * kernel + k] : 0.0f;
                        }
        });
    return {w, weights.vector(name + ".bias", {out}), stride, taps, (kernel - stride) / 2};
}

ggml_tensor* Generator::upsample(Plan& g, const Upsample& u, ggml_tensor* x) const {
    ggml_context* ctx = g.ctx();
    const int64_t in = x->ne[0], length = x->ne[1], out = u.w->ne[1] / u.stride;
    // Rows of `stride` outputs until padding + length * stride samples are there.
    const int64_t rows = (u.padding + length * u.stride + u.stride - 1) / u.stride;
    x = pad_width(g, x, u.taps - 1, rows - length);
    ggml_tensor* windows = window_view(g, ggml_reshape_4d(ctx, x, in, x->ne[1], 1, 1), u.taps, rows, 1, 0);
    ggml_tensor* y = has_own_product(g, u.w, rows)
                         ? product(g, Linear{u.w}, windows)
                         : product(g, u.w, ggml_reshape_2d(ctx, ggml_cont(ctx, windows), u.taps * in, rows));
    y = columns(g, ggml_reshape_2d(ctx, y, out, rows * u.stride), u.padding, length * u.stride);
    return ggml_add(ctx, y, u.b);
}

ggml_tensor* Generator::activate(Plan& g, const Activation& a, ggml_tensor* x) const {
    ggml_context* ctx = g.ctx();
    const int64_t n = x->ne[1];
    if (g.backend().uses_host_memory()) {
        const std::vector<float>&up = *a.up, &down = *a.down;
        return g.computed(GGML_TYPE_F32, {x->ne[0], n, 1, 1},
                          {ggml_is_contiguous(x) ? x : ggml_cont(ctx, x), a.frequency, a.weight},
                          [&up, &down](ggml_tensor* dst, Share share) {
                              const auto values = [&](int i) { return static_cast<const float*>(dst->src[i]->data); };
                              cpu_kernels().own()->snake({values(0), dst->ne[0], dst->ne[1], values(1), values(2),
                                                          up.data(), down.data(), static_cast<float*>(dst->data)},
                                                         share);
                          });
    }
    auto snake = [&](ggml_tensor* z) {
        ggml_tensor* s = ggml_sqr(ctx, ggml_sin(ctx, ggml_mul(ctx, z, a.frequency)));
        return ggml_add(ctx, z, ggml_mul(ctx, s, a.weight));
    };
    // The signal at twice the rate stays in two halves, even and odd samples, so that no step has a stride.
    x = join(g, repeat_column(g, x, 0, 3), x, repeat_column(g, x, n - 1, 3));
    ggml_tensor* even = snake(filter(g, x, *a.up, 1, 2.0f, n, [](int i) { return 5 - i; }));
    ggml_tensor* odd = snake(filter(g, x, *a.up, 0, 2.0f, n, [](int i) { return 6 - i; }));
    // Its first sample is an even one, its last an odd one; both are repeated beyond the ends.
    ggml_tensor* even_padded = join(g, repeat_column(g, even, 0, 2), even, repeat_column(g, odd, n - 1, 3));
    ggml_tensor* odd_padded = join(g, repeat_column(g, even, 0, 3), odd, repeat_column(g, odd, n - 1, 2));
    return ggml_add(ctx, filter(g, even_padded, *a.down, 1, 1.0f, n, [](int i) { return i; }),
                    filter(g, odd_padded, *a.down, 0, 1.0f, n, [](int i) { return i; }));
}

ggml_tensor* Generator::activate(Plan& g, const std::vector<Activation>& acts, size_t index, ggml_tensor* x) const {
    return hifi_gan_ ? ggml_leaky_relu(g.ctx(), x, leak, /*inplace=*/false) : activate(g, acts[index], x);
}

ggml_tensor* Generator::build(Plan& g, ggml_tensor* mel) const {
    ggml_context* ctx = g.ctx();
    auto stage = [&](ggml_tensor* t, const std::string& name) { return g.stage(t, "vocoder." + path_ + name); };
    ggml_tensor* x = stage(conv1d(g, conv_pre_, mel, 1), "conv_pre");
    for (size_t i = 0; i < ups_.size(); ++i) {
        if (hifi_gan_) x = ggml_leaky_relu(ctx, x, leak, /*inplace=*/false);
        x = stage(upsample(g, ups_[i], x), "ups." + std::to_string(i));
        ggml_tensor* sum = nullptr;
        for (size_t k = 0; k < blocks_per_stage_; ++k) {
            const size_t index = i * blocks_per_stage_ + k;
            const ResBlock& b = resblocks_[index];
            ggml_tensor* z = x;
            for (size_t j = 0; j < b.dilations.size(); ++j) {
                ggml_tensor* y = conv1d(g, b.convs1[j], activate(g, b.acts1, j, z), b.dilations[j]);
                z = conv1d(g, b.convs2[j], activate(g, b.acts2, j, y), 1, z);
            }
            stage(z, "resblocks." + std::to_string(index));
            sum = sum ? ggml_add(ctx, sum, z) : z;
        }
        x = ggml_scale(ctx, sum, 1.0f / static_cast<float>(blocks_per_stage_));
    }
    x = stage(hifi_gan_ ? ggml_leaky_relu(ctx, x, last_leak, /*inplace=*/false) : activate(g, act_post_, x),
              "act_post");
    x = conv1d(g, conv_post_, x, 1);
    if (hifi_gan_) x = ggml_tanh(ctx, x);
    return g.output(stage(x, "output"), "vocoder." + path_ + "output");
}

Array Generator::run(const Array& mel, int64_t piece_frames, Trace* trace,
                     const std::function<void()>& on_piece) const {
    const int64_t sides = mel.dim(0), frames = mel.dim(1), bins = mel.dim(2);
    if (sides * bins != in_channels_)
        throw Error(ErrorCode::invalid_request,
                    "[vocoder] the spectrogram must have " + std::to_string(in_channels_) + " values per frame");
    if (piece_frames <= 0) piece_frames = frames;
    Array wave{{2, frames * hop_}, std::vector<float>(static_cast<size_t>(2 * frames * hop_))};
    std::unique_ptr<Plan> g;
    ggml_tensor *input = nullptr, *output = nullptr;
    // Of one length, but at the ends, so that they share a graph.
    for (int64_t start = 0; start < frames; start += piece_frames) {
        const int64_t end = std::min(frames, start + piece_frames);
        const int64_t from = std::max<int64_t>(0, start - context_), to = std::min(frames, end + context_);
        if (!g || input->ne[1] != to - from) {
            g.reset();
            g = std::make_unique<Plan>(workspace_.backend(), "vocoder", trace);
            input = g->input("mel", GGML_TYPE_F32, {in_channels_, to - from});
            output = build(*g, input);
        }
        std::vector<float> values;
        for (int64_t t = from; t < to; ++t)
            for (int64_t s = 0; s < sides; ++s) {
                const auto row = mel.data.begin() + (s * frames + t) * bins;
                values.insert(values.end(), row, row + bins);
            }
        g->set(input, values);
        workspace_.run(*g);
        const std::vector<float> samples = g->get(output);  // (n, 2)
        for (int64_t n = start * hop_; n < end * hop_; ++n)
            for (int64_t s = 0; s < 2; ++s)
                wave.data[static_cast<size_t>(s * frames * hop_ + n)] =
                    samples[static_cast<size_t>((n - from * hop_) * 2 + s)];
        on_piece();
    }
    return wave;
}

MemoryUse Generator::measure(int64_t frames, int64_t piece_frames) const {
    const int64_t length = std::min(frames, (piece_frames > 0 ? piece_frames : frames) + 2 * context_);
    Plan g(workspace_.backend(), "vocoder", nullptr);
    ggml_tensor* input = g.input("mel", GGML_TYPE_F32, {in_channels_, length});
    ggml_tensor* output = build(g, input);
    MemoryUse use = workspace_.measure_all(g);
    use.host += ggml_nbytes(input) + ggml_nbytes(output);
    return use;
}

Vocoder::Vocoder(const ModelFiles& files, Workspace& workspace, const VocoderConfig& config, int64_t mel_bins)
    : workspace_(workspace),
      config_(config),
      weights_(files, workspace.backend(), "vocoder", "vocoder."),
      vocoder_(weights_, workspace, config.bwe ? "vocoder." : "", config.vocoder, 2 * mel_bins) {
    if (!config.bwe) return;
    bwe_.emplace(weights_, workspace, "bwe_generator.", *config.bwe, 2 * config.num_mels);
    const int64_t bins = config.n_fft / 2 + 1;
    auto f32 = [&](const char* name, std::vector<int64_t> shape, std::vector<int64_t> ne) {
        return weights_.permuted(name, std::move(shape), GGML_TYPE_F32, ne, {{ne[0] * ne[1], 1}});
    };
    forward_basis_ = f32("mel_stft.stft_fn.forward_basis", {2 * bins, 1, config.n_fft}, {config.n_fft, 2 * bins});
    mel_basis_ = f32("mel_stft.mel_basis", {config.num_mels, bins}, {bins, config.num_mels});
}

Vocoder::LogMel Vocoder::build_log_mel(int64_t frames) const {
    const int64_t n_fft = config_.n_fft, bins = n_fft / 2 + 1;
    LogMel b{std::make_unique<Plan>(workspace_.backend(), "vocoder", nullptr), nullptr, nullptr};
    Plan& g = *b.plan;
    ggml_context* ctx = g.ctx();
    b.windows = g.input("windows", GGML_TYPE_F32, {n_fft, frames});
    ggml_tensor* spectrum = product(g, forward_basis_, b.windows);  // rows 0..bins-1 real, then imaginary
    auto half = [&](int64_t i) {
        return ggml_sqr(ctx, ggml_cont(ctx, ggml_view_2d(ctx, spectrum, bins, frames, spectrum->nb[1],
                                                         static_cast<size_t>(i * bins) * sizeof(float))));
    };
    ggml_tensor* magnitude = ggml_sqrt(ctx, ggml_add(ctx, half(0), half(1)));
    b.mel = g.output(product(g, mel_basis_, magnitude), "vocoder.mel_stft");
    return b;
}

// Natural log of the mel magnitudes, (2, n) -> (2, n / hop, mels); causal: each frame ends with its hop.
Array Vocoder::log_mel(const Array& wave) const {
    const int64_t hop = config_.hop_length, n_fft = config_.n_fft, length = wave.dim(1);
    const int64_t frames = (length + hop - 1) / hop;
    const auto [plan, x, out] = build_log_mel(frames);
    Plan& g = *plan;
    Array result{{2, frames, config_.num_mels}, {}};
    for (int64_t s = 0; s < 2; ++s) {
        std::vector<float> windows(static_cast<size_t>(frames * n_fft), 0.0f);
        for (int64_t f = 0; f < frames; ++f)
            for (int64_t i = 0; i < n_fft; ++i) {
                const int64_t at = f * hop + i - (n_fft - hop);
                if (at >= 0 && at < length)
                    windows[static_cast<size_t>(f * n_fft + i)] = wave.data[static_cast<size_t>(s * length + at)];
            }
        g.set(x, windows);
        workspace_.run(g);
        for (float v : g.get(out)) result.data.push_back(std::log(std::max(v, 1e-5f)));
    }
    return result;
}

namespace {

// Of so many seconds, 0 = all; at least one, however short the piece.
int64_t piece_frames(const Generator& g, int rate, double seconds) {
    return static_cast<int64_t>(std::ceil(seconds * rate / static_cast<double>(g.hop())));
}

}  // namespace

int64_t Vocoder::pieces(int64_t frames, double piece_seconds) const {
    const auto count = [](int64_t of, int64_t each) { return each > 0 ? (of + each - 1) / each : 1; };
    const int64_t own = count(frames, piece_frames(vocoder_, config_.input_sampling_rate, piece_seconds));
    if (!bwe_) return own;
    const int64_t hops = (frames * vocoder_.hop() + config_.hop_length - 1) / config_.hop_length;
    return own + count(hops, piece_frames(*bwe_, config_.output_sampling_rate, piece_seconds));
}

MemoryUse Vocoder::measure(int64_t frames, double piece_seconds) const {
    MemoryUse most = vocoder_.measure(frames, piece_frames(vocoder_, config_.input_sampling_rate, piece_seconds));
    const size_t wave = static_cast<size_t>(2 * frames * vocoder_.hop()) * sizeof(float);
    most.host += wave;
    if (!bwe_) return most;
    const int64_t hops = (frames * vocoder_.hop() + config_.hop_length - 1) / config_.hop_length;
    const LogMel mel = build_log_mel(hops);
    MemoryUse use = workspace_.measure_all(*mel.plan);
    use.host += wave + ggml_nbytes(mel.windows) + 3 * ggml_nbytes(mel.mel);
    most.also(use);
    use = bwe_->measure(hops, piece_frames(*bwe_, config_.output_sampling_rate, piece_seconds));
    const size_t full = static_cast<size_t>(2 * hops * bwe_->hop()) * sizeof(float);
    use.host += wave + full + 2 * ggml_nbytes(mel.mel);
    most.also(use);
    most.host = std::max(most.host, wave + 3 * full);
    return most;
}

Waveform Vocoder::synthesise(const Array& mel, double piece_seconds, const std::function<void()>& on_piece,
                             Trace* trace) const {
    auto clamp = [](Array& a) {
        int64_t beyond = 0;
        for (float& v : a.data) {
            beyond += v < -1 || v > 1;
            v = std::clamp(v, -1.0f, 1.0f);
        }
        return beyond;
    };
    Array wave = vocoder_.run(mel, piece_frames(vocoder_, config_.input_sampling_rate, piece_seconds), trace, on_piece);
    clamp(wave);
    if (!bwe_) return {std::move(wave), config_.output_sampling_rate, 0};  // its last activation ends at 1
    Array full =
        bwe_->run(log_mel(wave), piece_frames(*bwe_, config_.output_sampling_rate, piece_seconds), trace, on_piece);
    const Array skip = resample_3x(wave);
    const int64_t n = skip.dim(1), generated = full.dim(1);
    Waveform out{{{2, n}, skip.data}, config_.output_sampling_rate, 0};
    for (int64_t s = 0; s < 2; ++s)
        for (int64_t i = 0; i < n; ++i)
            out.samples.data[static_cast<size_t>(s * n + i)] += full.data[static_cast<size_t>(s * generated + i)];
    out.clipped = clamp(out.samples);
    return out;
}

Array resample_3x(const Array& wave) {
    constexpr int factor = 3, width = 7, taps = 2 * width * factor + 1;
    constexpr double rolloff = 0.99, half_pi = 1.57079632679489661923, lobes = 6;
    double kernel[taps];
    for (int i = 0; i < taps; ++i) {
        const double t = (static_cast<double>(i) / factor - width) * rolloff;
        const double window = std::cos(std::clamp(t, -lobes, lobes) * half_pi / lobes);
        kernel[i] = (t == 0 ? 1.0 : std::sin(2 * half_pi * t) / (2 * half_pi * t)) * window * window * rolloff;
    }
    const int64_t channels = wave.dim(0), n = wave.dim(1);
    Array out{{channels, factor * n}, std::vector<float>(static_cast<size_t>(channels * factor * n))};
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t m = 0; m < factor * n; ++m) {
            // Sample m lies at input m / 3; inputs beyond the ends repeat the outermost.
            double sum = 0;
            for (int64_t t = (m + width * factor) / factor; m - factor * t + width * factor < taps; --t)
                sum += kernel[m - factor * t + width * factor] *
                       wave.data[static_cast<size_t>(c * n + std::clamp<int64_t>(t, 0, n - 1))];
            out.data[static_cast<size_t>(c * factor * n + m)] = static_cast<float>(sum);
        }
    return out;
}

}  // namespace sdltx
