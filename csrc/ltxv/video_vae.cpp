#include "video_vae.h"

#include <algorithm>
#include <cmath>

#include "base/platform.h"
#include "geometry.h"

namespace sdltx {

namespace {

// The stored channels are c slowest, then offsets in (time, height, width); depth_to_space takes c fastest.
std::vector<Axis> packed_order(int64_t channels, std::array<int, 3> stride) {
    const int64_t offsets = stride[0] * stride[1] * stride[2];
    return {{offsets, 1}, {channels, offsets}};
}

// Pixels of a patch are packed the other way round: width offset slow, height offset fast.
std::vector<Axis> patch_order(int64_t channels, int64_t patch) {
    return {{patch, 1}, {patch, patch}, {channels, patch * patch}};
}

// Channels as they are stored, c slowest, in the order that depth_to_space takes; [C, W, H, F].
ggml_tensor* packed(Plan& g, ggml_tensor* x, std::array<int, 3> stride) {
    ggml_context* ctx = g.ctx();
    const int64_t cells = stride[0] * stride[1] * stride[2], pixels = x->ne[1] * x->ne[2] * x->ne[3];
    ggml_tensor* y = ggml_reshape_3d(ctx, x, cells, x->ne[0] / cells, pixels);
    y = ggml_cont(ctx, ggml_permute(ctx, y, 1, 0, 2, 3));
    return ggml_reshape_4d(ctx, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

// Channels to pixels and frames; doubling time gives the causal first frame a twin, which goes.
ggml_tensor* unfold(Plan& g, ggml_tensor* x, std::array<int, 3> stride) {
    x = depth_to_space(g, x, stride);
    if (stride[0] == 1) return x;
    return ggml_view_4d(g.ctx(), x, x->ne[0], x->ne[1], x->ne[2], x->ne[3] - 1, x->nb[1], x->nb[2], x->nb[3], x->nb[3]);
}

// Sums of the masks of all placements, per pixel or frame.
std::vector<float> coverage(const std::vector<Placement>& placements) {
    std::vector<float> sum(static_cast<size_t>(placements.back().end), 0.0f);
    for (auto& p : placements)
        for (int64_t i = p.start; i < p.end; ++i)
            sum[static_cast<size_t>(i)] += p.mask[static_cast<size_t>(i - p.start)];
    return sum;
}

std::vector<Placement> place(const std::vector<Span>& spans, Placement (*one)(const Span&, int64_t), int64_t scale) {
    std::vector<Placement> out;
    for (auto& s : spans) out.push_back(one(s, scale));
    return out;
}

}  // namespace

VideoDecoder::VideoDecoder(const ModelFiles& files, Workspace& workspace, const VideoVaeConfig& config)
    : workspace_(workspace), config_(config), weights_(files, workspace.backend(), "video VAE", "vae.") {
    mean_ = weights_.host("per_channel_statistics.mean-of-means", {config.latent_channels});
    std_ = weights_.host("per_channel_statistics.std-of-means", {config.latent_channels});
    int64_t width = config.decoder_base_channels;
    for (auto& b : config.decoder_blocks) width *= b.multiplier;
    const auto conv = [&](const std::string& name, int64_t in, int64_t out, std::vector<Axis> out_axes = {}) {
        ConvOptions options;
        options.out_axes = std::move(out_axes);
        options.space = config.reflect ? SpacePadding::reflect : SpacePadding::zeros;
        return declare_conv3d(weights_, name, in, out, vae_kernel, options);
    };
    conv_in_ = conv("decoder.conv_in.conv", config.latent_channels, width);
    int64_t index = 0;
    for (auto block = config.decoder_blocks.rbegin(); block != config.decoder_blocks.rend(); ++block, ++index) {
        const std::string at = "decoder.up_blocks." + std::to_string(index) + ".";
        UpBlock up;
        if (block->type == "res_x") {
            for (int64_t i = 0; i < block->num_layers; ++i) {
                const std::string res = at + "res_blocks." + std::to_string(i) + ".";
                up.res_blocks.push_back(
                    {conv(res + "conv1.conv", width, width), conv(res + "conv2.conv", width, width)});
            }
        } else {
            up.stride = stride_of(block->type);
            const int64_t cells = up.stride[0] * up.stride[1] * up.stride[2], out = width / block->multiplier;
            up.conv = conv(at + "conv.conv", width, out * cells, packed_order(out, up.stride));
            if (block->residual && (width % cells || cells % block->multiplier))
                throw Error(ErrorCode::model_mismatch, "[video VAE] a residual upsampler of " + std::to_string(width) +
                                                           " channels cannot add what goes in to what comes out");
            if (block->residual) up.repeat = cells / block->multiplier;
            width = out;
        }
        up_blocks_.push_back(std::move(up));
    }
    conv_out_ = conv("decoder.conv_out.conv", width, config.out_channels * config.patch_size * config.patch_size,
                     patch_order(config.out_channels, config.patch_size));
}

VideoDecoder::Built VideoDecoder::build(std::array<int64_t, 3> shape, Trace* trace) const {
    Built b{shape, std::make_unique<Plan>(workspace_.backend(), "video VAE", trace), nullptr, nullptr};
    Plan& g = *b.plan;
    ggml_context* ctx = g.ctx();
    b.latents = g.input("latents", GGML_TYPE_F32, {config_.latent_channels, shape[2], shape[1], shape[0]});
    // Volumes are [channels, W, H, F].
    ggml_tensor* x = g.stage(conv3d(g, conv_in_, b.latents, TimePadding::replicate), "vae.decoder.conv_in");
    for (size_t i = 0; i < up_blocks_.size(); ++i) {
        const UpBlock& up = up_blocks_[i];
        for (auto& block : up.res_blocks) x = res_block(g, block, x, TimePadding::replicate);
        if (up.conv.w) {
            ggml_tensor* y =
                unfold(g, conv3d(g, up.conv, x, TimePadding::replicate), up.stride);  // [C/n, W s3, H s2, F]
            if (up.repeat) {
                ggml_tensor* skip = unfold(g, packed(g, x, up.stride), up.stride);
                y = ggml_add(ctx, y, ggml_repeat_4d(ctx, skip, y->ne[0], y->ne[1], y->ne[2], y->ne[3]));
            }
            x = y;
        }
        g.stage(x, "vae.decoder.up_blocks." + std::to_string(i));
    }
    x = conv3d(g, conv_out_, pixel_norm_silu(g, x), TimePadding::replicate);  // [3 patch^2, W, H, F]
    const int patch = static_cast<int>(config_.patch_size);
    b.frames = g.output(depth_to_space(g, x, {1, patch, patch}), "vae.decoder.frames");
    return b;
}

// Frames of a clip that are handed out at a time: not more bytes, but one at least.
int64_t VideoDecoder::frames_at_a_time(int64_t height, int64_t width) const {
    constexpr int64_t most_bytes = int64_t{64} << 20;
    return std::max<int64_t>(1, most_bytes / (height * width * config_.out_channels * int64_t{sizeof(float)}));
}

MemoryUse VideoDecoder::measure(std::array<int64_t, 3> shape, const Tiling& tiling) const {
    check(tiling);
    const TileGrid grid(shape, tiling);
    const Built b = build(grid.largest(), nullptr);
    MemoryUse use = workspace_.measure_all(*b.plan);
    int64_t longest = 0;
    for (const Placement& p : place(grid.times, place_time, 8)) longest = std::max(longest, p.end - p.start);
    const int64_t height = 32 * shape[1], width = 32 * shape[2], frame = height * width * config_.out_channels;
    // Frames that are blended, those of a tile one at a time, and those that are handed out, as floats and as bytes.
    const int64_t out = std::min(longest, frames_at_a_time(height, width));
    use.host += static_cast<size_t>(frame) *
                    (static_cast<size_t>(longest + 1 + out) * sizeof(float) + static_cast<size_t>(2 * out)) +
                ggml_nbytes(b.latents);
    return use;
}

void VideoDecoder::check_latents(const std::vector<int64_t>& shape) const {
    if (shape.size() != 4 || shape[0] != config_.latent_channels)
        throw Error(ErrorCode::invalid_request, "[decode] this model decodes video latents of (" +
                                                    std::to_string(config_.latent_channels) +
                                                    ", frames, height, width), got " + spell_shape(shape) +
                                                    "; give the model that they were made with");
    check_video_latents(shape[1], shape[2], shape[3]);
}

void VideoDecoder::decode(const Array& latents, const Tiling& tiling, const Sink& sink, const Progress& progress,
                          Trace* trace) const {
    check(tiling);
    check_latents(latents.shape);
    const int64_t channels = latents.dim(0), depth = latents.dim(1), height = latents.dim(2), width = latents.dim(3);
    const TileGrid grid({depth, height, width}, tiling);
    const auto &times = grid.times, &rows = grid.rows, &cols = grid.columns;
    const auto time_places = place(times, place_time, 8), row_places = place(rows, place_space, 32),
               col_places = place(cols, place_space, 32);
    // The tiles form a grid, so the sum of their weights is a product of one sum per axis.
    const auto time_sum = coverage(time_places), row_sum = coverage(row_places), col_sum = coverage(col_places);
    const int64_t pixel_rows = height * 32, pixel_cols = width * 32, rgb = config_.out_channels;
    const auto total = static_cast<int64_t>(grid.size());
    int64_t done = 0;
    // Frames that are being blended, and a copy of those that are ready.
    int64_t longest = 0;
    for (auto& p : time_places) longest = std::max(longest, p.end - p.start);
    const int64_t picture = pixel_rows * pixel_cols * rgb, at_a_time = frames_at_a_time(pixel_rows, pixel_cols);
    const auto picture_bytes = static_cast<size_t>((longest + std::min(longest, at_a_time)) * picture) * sizeof(float);
    if (picture_bytes > available_memory())
        throw Error(ErrorCode::out_of_memory, "[decode] the pictures of one tile in time need " +
                                                  std::to_string(picture_bytes >> 20) +
                                                  " MiB; ask for a smaller picture or shorter tiles");
    report(progress, "decode", done, total);

    Built built;
    std::vector<float> blended;  // frames [first, ...) that later tiles may still touch
    blended.reserve(static_cast<size_t>(longest * picture));
    std::vector<float> tile_frame;
    int64_t first = 0;
    for (size_t k = 0; k < times.size(); ++k) {
        const Placement& time = time_places[k];
        blended.resize(static_cast<size_t>((time.end - first) * picture), 0.0f);
        for (size_t i = 0; i < rows.size(); ++i)
            for (size_t j = 0; j < cols.size(); ++j) {
                const std::array<int64_t, 3> shape = {times[k].end - times[k].start, rows[i].end - rows[i].start,
                                                      cols[j].end - cols[j].start};
                if (!built.plan || built.shape != shape) built = build(shape, trace);
                std::vector<float> input;
                input.reserve(static_cast<size_t>(channels * shape[0] * shape[1] * shape[2]));
                for (int64_t t = times[k].start; t < times[k].end; ++t)
                    for (int64_t y = rows[i].start; y < rows[i].end; ++y)
                        for (int64_t x = cols[j].start; x < cols[j].end; ++x)
                            for (int64_t c = 0; c < channels; ++c) {
                                const size_t s = static_cast<size_t>(c);
                                input.push_back(
                                    latents.data[static_cast<size_t>(((c * depth + t) * height + y) * width + x)] *
                                        (*std_)[s] +
                                    (*mean_)[s]);
                            }
                built.plan->set(built.latents, input);
                workspace_.run(*built.plan);
                const auto tile_size = static_cast<size_t>(ggml_nelements(built.frames));
                if (tile_size != (time.mask.size() * row_places[i].mask.size() * col_places[j].mask.size()) *
                                     static_cast<size_t>(rgb))
                    throw Error(ErrorCode::backend,
                                "[decode] the decoder gave pictures of another size than it should");
                tile_frame.resize(tile_size / time.mask.size());
                for (int64_t t = time.start; t < time.end; ++t) {
                    built.plan->get(built.frames, tile_frame.size() * static_cast<size_t>(t - time.start),
                                    tile_frame.size(), tile_frame.data());
                    const float* from = tile_frame.data();
                    for (int64_t y = row_places[i].start; y < row_places[i].end; ++y) {
                        const float row_weight = time.mask[static_cast<size_t>(t - time.start)] *
                                                 row_places[i].mask[static_cast<size_t>(y - row_places[i].start)];
                        float* to = &blended[static_cast<size_t>(
                            (((t - first) * pixel_rows + y) * pixel_cols + col_places[j].start) * rgb)];
                        for (float m : col_places[j].mask)
                            for (int64_t c = 0; c < rgb; ++c) *to++ += *from++ * (row_weight * m);
                    }
                }
                report(progress, "decode", ++done, total);
            }
        const int64_t ready = (k + 1 < times.size() ? time_places[k + 1].start : time.end) - first;
        for (int64_t done_frames = 0; done_frames < ready; done_frames += at_a_time) {
            const int64_t count = std::min(at_a_time, ready - done_frames);
            Array frames{{count, pixel_rows, pixel_cols, rgb}, {}};
            const auto from = blended.begin() + done_frames * picture;
            frames.data.assign(from, from + count * picture);
            size_t at = 0;
            for (int64_t t = first + done_frames; t < first + done_frames + count; ++t)
                for (float row : row_sum)
                    for (float col : col_sum) {
                        const float weight = std::max(time_sum[static_cast<size_t>(t)] * row * col, 1e-8f);
                        for (int64_t c = 0; c < rgb; ++c) frames.data[at++] /= weight;
                    }
            sink(frames);
        }
        blended.erase(blended.begin(), blended.begin() + ready * picture);
        first += ready;
    }
}

Frames to_bytes(const Array& frames) {
    Frames out{frames.dim(0), frames.dim(1), frames.dim(2), std::vector<uint8_t>(frames.data.size())};
    for (size_t i = 0; i < out.data.size(); ++i) {
        if (!std::isfinite(frames.data[i]))
            throw Error(
                ErrorCode::backend,
                "[decode] the decoder gave values that are not finite; check the model files, or try precision f32");
        out.data[i] = static_cast<uint8_t>(std::clamp((frames.data[i] + 1.0f) / 2.0f, 0.0f, 1.0f) * 255.0f);
    }
    return out;
}

}  // namespace sdltx
