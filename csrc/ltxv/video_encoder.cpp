#include "video_encoder.h"

#include <algorithm>

namespace sdltx {

namespace {

// Pixels and frames of a volume to channels: [C, W, H, F] -> [S, C, W/s3 H/s2 F/s1], where S = s1 s2 s3 counts the
// offsets (p1, p2, p3), p3 fastest.
ggml_tensor* space_to_depth(Plan& g, ggml_tensor* x, std::array<int, 3> stride) {
    ggml_context* ctx = g.ctx();
    const int64_t channels = x->ne[0], cells = stride[0] * stride[1] * stride[2];
    const int64_t width = x->ne[1] / stride[2], height = x->ne[2] / stride[1], depth = x->ne[3] / stride[0];
    ggml_tensor* y = filled(g, nullptr, channels * cells, width, height, depth);
    size_t offset = 0;
    for (int p1 = 0; p1 < stride[0]; ++p1)
        for (int p2 = 0; p2 < stride[1]; ++p2)
            for (int p3 = 0; p3 < stride[2]; ++p3) {
                ggml_tensor* from =
                    ggml_view_4d(ctx, x, channels, width, height, depth, x->nb[1] * static_cast<size_t>(stride[2]),
                                 x->nb[2] * static_cast<size_t>(stride[1]), x->nb[3] * static_cast<size_t>(stride[0]),
                                 static_cast<size_t>(p1) * x->nb[3] + static_cast<size_t>(p2) * x->nb[2] +
                                     static_cast<size_t>(p3) * x->nb[1]);
                ggml_tensor* to =
                    ggml_view_4d(ctx, y, channels, width, height, depth, y->nb[1], y->nb[2], y->nb[3], offset);
                y = g.after(y, ggml_cpy(ctx, from, to));
                offset += static_cast<size_t>(channels) * sizeof(float);
            }
    y = ggml_reshape_3d(ctx, y, channels, cells, width * height * depth);
    return ggml_cont(ctx, ggml_permute(ctx, y, 1, 0, 2, 3));
}

}  // namespace

VideoEncoder::VideoEncoder(const ModelFiles& files, Workspace& workspace, const VideoVaeConfig& config)
    : workspace_(workspace), config_(config), weights_(files, workspace.backend(), "video VAE encoder", "vae.") {
    mean_ = weights_.host("per_channel_statistics.mean-of-means", {config.latent_channels});
    std_ = weights_.host("per_channel_statistics.std-of-means", {config.latent_channels});
    const auto conv = [&](const std::string& name, int64_t in, int64_t out) {
        return declare_conv3d(weights_, name, in, out, vae_kernel);
    };
    int64_t width = config.encoder_base_channels;
    conv_in_ = conv("encoder.conv_in.conv", config.out_channels * config.patch_size * config.patch_size, width);
    for (size_t i = 0; i < config.encoder_blocks.size(); ++i) {
        const VaeBlock& block = config.encoder_blocks[i];
        const std::string at = "encoder.down_blocks." + std::to_string(i) + ".";
        DownBlock& down = down_blocks_.emplace_back();
        if (block.type == "res_x") {
            for (int64_t k = 0; k < block.num_layers; ++k) {
                const std::string res = at + "res_blocks." + std::to_string(k) + ".";
                down.res_blocks.push_back(
                    {conv(res + "conv1.conv", width, width), conv(res + "conv2.conv", width, width)});
            }
            continue;
        }
        down.stride = stride_of(block.type);
        const int64_t cells = down.stride[0] * down.stride[1] * down.stride[2], out = width * block.multiplier;
        if (out % cells || cells % block.multiplier)
            throw Error(ErrorCode::model_mismatch, "[video VAE encoder] " + std::to_string(width) +
                                                       " channels cannot be folded to " + std::to_string(out));
        down.conv = conv(at + "conv.conv", width, out / cells);
        down.averaged = cells / block.multiplier;
        width = out;
    }
    conv_out_ = conv("encoder.conv_out.conv", width, config.latent_channels + 1);
}

VideoEncoder::Built VideoEncoder::build(std::array<int64_t, 3> shape, Trace* trace) const {
    Built b{shape, std::make_unique<Plan>(workspace_.backend(), "video VAE encoder", trace), nullptr, nullptr};
    Plan& g = *b.plan;
    ggml_context* ctx = g.ctx();
    const int64_t patch = config_.patch_size, cells = 32 / patch;
    b.pixels =
        g.input("pixels", GGML_TYPE_F32,
                {config_.out_channels * patch * patch, shape[2] * cells, shape[1] * cells, 8 * (shape[0] - 1) + 1});
    ggml_tensor* x = g.stage(conv3d(g, conv_in_, b.pixels, TimePadding::causal), "vae.encoder.conv_in");
    for (size_t i = 0; i < down_blocks_.size(); ++i) {
        const DownBlock& down = down_blocks_[i];
        for (auto& block : down.res_blocks) x = res_block(g, block, x, TimePadding::causal);
        if (down.conv.w) {
            if (down.stride[0] == 2) {
                ggml_tensor* first =
                    ggml_view_4d(ctx, x, x->ne[0], x->ne[1], x->ne[2], 1, x->nb[1], x->nb[2], x->nb[3], 0);
                x = ggml_concat(ctx, first, x, 3);
            }
            const int64_t w = x->ne[1] / down.stride[2], h = x->ne[2] / down.stride[1], f = x->ne[3] / down.stride[0];
            ggml_tensor* folded = space_to_depth(g, conv3d(g, down.conv, x, TimePadding::causal), down.stride);
            folded = ggml_reshape_4d(ctx, folded, folded->ne[0] * folded->ne[1], w, h, f);
            ggml_tensor* skip = space_to_depth(g, x, down.stride);  // [S, C, pixels]
            skip = ggml_reshape_3d(ctx, skip, down.averaged, skip->ne[0] / down.averaged * skip->ne[1], skip->ne[2]);
            if (down.averaged > 1) skip = ggml_mean(ctx, skip);
            x = ggml_add(ctx, folded, ggml_reshape_4d(ctx, skip, folded->ne[0], w, h, f));
        }
        g.stage(x, "vae.encoder.down_blocks." + std::to_string(i));
    }
    x = g.stage(conv3d(g, conv_out_, pixel_norm_silu(g, x), TimePadding::causal), "vae.encoder.conv_out");
    b.latents = g.output(x, "vae.encoder.conv_out");  // [C + 1, W', H', F']: means, and one variance for all of them
    return b;
}

MemoryUse VideoEncoder::measure(std::array<int64_t, 3> shape, const Tiling& tiling) const {
    check(tiling);
    const Built b = build(TileGrid(shape, tiling).largest(), nullptr);
    MemoryUse use = workspace_.measure_all(*b.plan);
    use.host += ggml_nbytes(b.pixels) + ggml_nbytes(b.latents) +
                static_cast<size_t>(32 * shape[1] * 32 * shape[2] * config_.out_channels) * sizeof(float);
    return use;
}

Array VideoEncoder::encode(const Footage& footage, const Tiling& tiling, const Progress& progress, Trace* trace) const {
    check(tiling);
    const int64_t rgb = config_.out_channels, patch = config_.patch_size;
    if (rgb != 3 || footage.frames < 1 || footage.height < 32 || footage.height % 32 || footage.width < 32 ||
        footage.width % 32)
        throw Error(
            ErrorCode::invalid_request,
            "[image] the video VAE encodes pictures of (frames, height, width, 3) with sides that are multiples "
            "of 32, got " +
                spell_shape({footage.frames, footage.height, footage.width, 3}));
    const std::array<int64_t, 3> shape = {(footage.frames - 1) / 8 + 1, footage.height / 32, footage.width / 32};
    const int64_t depth = shape[0], height = shape[1], width = shape[2];
    const TileGrid grid(shape, tiling);
    const int64_t channels = config_.latent_channels, total = static_cast<int64_t>(grid.size());
    Array latents{{channels, depth, height, width},
                  std::vector<float>(static_cast<size_t>(channels * depth * height * width))};
    std::vector<float> weights(static_cast<size_t>(depth * height * width));
    int64_t done = 0;
    report(progress, "encode", done, total);
    std::vector<float> frame(static_cast<size_t>(footage.height * footage.width * rgb));
    Built built;
    const auto add_tile = [&](const Span& time, const Span& row, const Span& column) {
        const std::array<int64_t, 3> tile = {time.end - time.start, row.end - row.start, column.end - column.start};
        if (!built.plan || built.shape != tile) built = build(tile, trace);
        // Pixels of a patch lie with the width offset slow, the height offset fast.
        std::vector<float> input;
        input.reserve(static_cast<size_t>(ggml_nelements(built.pixels)));
        for (int64_t t = 8 * time.start; t < 8 * (time.end - 1) + 1; ++t) {
            footage.read(t, frame.data());
            for (int64_t y = 32 * row.start; y < 32 * row.end; y += patch)
                for (int64_t x = 32 * column.start; x < 32 * column.end; x += patch)
                    for (int64_t c = 0; c < rgb; ++c)
                        for (int64_t r = 0; r < patch; ++r)
                            for (int64_t q = 0; q < patch; ++q)
                                input.push_back(
                                    frame[static_cast<size_t>(((y + q) * footage.width + x + r) * rgb + c)]);
        }
        built.plan->set(built.pixels, input);
        workspace_.run(*built.plan);
        const std::vector<float> values = built.plan->get(built.latents);
        const Placement times = place_time(time, 1), rows = place_space(row, 1), columns = place_space(column, 1);
        const float* from = values.data();
        for (int64_t t = 0; t < tile[0]; ++t)
            for (int64_t y = 0; y < tile[1]; ++y)
                for (int64_t x = 0; x < tile[2]; ++x, from += channels + 1) {
                    const float weight = times.mask[static_cast<size_t>(t)] * rows.mask[static_cast<size_t>(y)] *
                                         columns.mask[static_cast<size_t>(x)];
                    const auto at =
                        static_cast<size_t>(((time.start + t) * height + row.start + y) * width + column.start + x);
                    weights[at] += weight;
                    for (int64_t c = 0; c < channels; ++c)
                        latents.data[static_cast<size_t>(c) * weights.size() + at] += weight * from[c];
                }
        report(progress, "encode", ++done, total);
    };
    for (auto& time : grid.times)
        for (auto& row : grid.rows)
            for (auto& column : grid.columns) add_tile(time, row, column);
    for (int64_t c = 0; c < channels; ++c) {
        const auto s = static_cast<size_t>(c);
        for (size_t i = 0; i < weights.size(); ++i) {
            float& value = latents.data[s * weights.size() + i];
            value = (value / std::max(weights[i], 1e-8f) - (*mean_)[s]) / (*std_)[s];
        }
    }
    return latents;
}

}  // namespace sdltx
