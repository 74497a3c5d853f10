#include "latent_upsampler.h"

#include <cmath>

#include "base/json.h"

namespace sdltx {

namespace {

constexpr std::array<int, 3> volume = {3, 3, 3}, picture = {1, 3, 3};
constexpr int64_t groups = 32;

const TensorInfo& required(const ModelFiles& files, const std::string& name) {
    const TensorInfo* t = files.find(name);
    if (!t)
        throw Error(ErrorCode::model_mismatch,
                    "[" + files.files().front()->path() + "] is no upscaler that is known: it lacks " + name);
    return *t;
}

std::array<int, 3> stride_of(LatentUpsampler::Kind kind) {
    switch (kind) {
        case LatentUpsampler::Kind::space_2:
            return {1, 2, 2};
        case LatentUpsampler::Kind::space_3_2:
            return {1, 3, 3};
        default:
            return {2, 1, 1};
    }
}

// Every second pixel of both axes of what a binomial filter of 5 x 5 leaves, with zeros beyond the edges.
ggml_tensor* blurred_half(Plan& g, ggml_tensor* x) {
    constexpr float taps[] = {1 / 16.0f, 4 / 16.0f, 6 / 16.0f, 4 / 16.0f, 1 / 16.0f};
    ggml_context* ctx = g.ctx();
    const int64_t channels = x->ne[0], height = x->ne[2], frames = x->ne[3];
    // Along the rows, then along the columns.
    ggml_tensor* padded = pad_width(g, x, 2, 2);
    const int64_t wide = (x->ne[1] - 1) / 2 + 1, tall = (height - 1) / 2 + 1;
    ggml_tensor* rows = nullptr;
    for (int64_t i = 0; i < 5; ++i) {
        ggml_tensor* part = ggml_view_4d(ctx, padded, channels, wide, height, frames, 2 * padded->nb[1], padded->nb[2],
                                         padded->nb[3], static_cast<size_t>(i) * padded->nb[1]);
        part = ggml_scale(ctx, ggml_cont(ctx, part), taps[i]);
        rows = rows ? ggml_add(ctx, rows, part) : part;
    }
    ggml_tensor* y = nullptr;
    ggml_tensor* zeros = filled(g, nullptr, channels, wide, height + 4, frames);
    ggml_tensor* inner = ggml_view_4d(ctx, zeros, channels, wide, height, frames, zeros->nb[1], zeros->nb[2],
                                      zeros->nb[3], 2 * zeros->nb[2]);
    zeros = g.after(zeros, ggml_cpy(ctx, rows, inner));
    for (int64_t i = 0; i < 5; ++i) {
        ggml_tensor* part = ggml_view_4d(ctx, zeros, channels, wide, tall, frames, zeros->nb[1], 2 * zeros->nb[2],
                                         zeros->nb[3], static_cast<size_t>(i) * zeros->nb[2]);
        part = ggml_scale(ctx, ggml_cont(ctx, part), taps[i]);
        y = y ? ggml_add(ctx, y, part) : part;
    }
    return y;
}

}  // namespace

// Of the weights: configurations of some files name a resampler that is not there.
LatentUpsampler::Kind LatentUpsampler::kind_of(const ModelFiles& files) {
    const std::string path = files.files().front()->path();
    if (required(files, "initial_conv.weight").shape.size() != 5)
        throw Error(ErrorCode::model_mismatch,
                    "[" + path + "] is an upscaler of single frames, which is not implemented");
    if (files.find("upsampler.conv.weight")) {
        if (const auto text = files.metadata("config")) {
            const Json j = parse_json(*text, "upscaler configuration");
            if (value_or(j, "spatial_scale", 1.5, "upscaler configuration") != 1.5)
                throw Error(ErrorCode::model_mismatch,
                            "[" + path + "] only the factor 1.5 of rational upscalers is implemented");
        }
        return LatentUpsampler::Kind::space_3_2;
    }
    const TensorInfo& w = required(files, "upsampler.0.weight");
    const int64_t factor = w.shape.size() > 1 && w.shape[1] ? w.shape[0] / w.shape[1] : 0;
    if (w.shape.size() == 4 && factor == 4) return LatentUpsampler::Kind::space_2;
    if (w.shape.size() == 5 && factor == 2) return LatentUpsampler::Kind::time_2;
    throw Error(ErrorCode::model_mismatch,
                "[" + path + "] upsamples in a way that is not implemented: upsampler.0.weight has the shape " +
                    spell_shape(w.shape));
}

const char* LatentUpsampler::name_of(Kind kind) {
    return kind == Kind::space_2 ? "space x2" : kind == Kind::space_3_2 ? "space x1.5" : "time x2";
}

LatentUpsampler::GroupNorm LatentUpsampler::declare_norm(const std::string& name, int64_t width) {
    return {weights_.vector(name + ".weight", {width}), weights_.vector(name + ".bias", {width})};
}

std::vector<LatentUpsampler::Block> LatentUpsampler::declare_blocks(const std::string& list, int64_t width) {
    std::vector<Block> blocks;
    for (int64_t i = 0;; ++i) {
        const std::string at = list + "." + std::to_string(i) + ".";
        if (!files_.has_prefix(at)) return blocks;
        blocks.push_back({declare_conv3d(weights_, at + "conv1", width, width, volume),
                          declare_conv3d(weights_, at + "conv2", width, width, volume),
                          declare_norm(at + "norm1", width), declare_norm(at + "norm2", width)});
    }
}

LatentUpsampler::LatentUpsampler(const ModelFiles& files, Workspace& workspace, int64_t channels)
    : files_(files),
      workspace_(workspace),
      channels_(channels),
      weights_(files, workspace.backend(), "upscaler", ""),
      kind_(kind_of(files)) {
    const TensorInfo& first = required(files, "initial_conv.weight");
    const int64_t width = first.shape[0];
    if (first.shape[1] != channels)
        throw Error(ErrorCode::model_mismatch, "[" + files.files().front()->path() + "] upsamples latents of " +
                                                   std::to_string(first.shape[1]) +
                                                   " channels, those of this model have " + std::to_string(channels) +
                                                   "; give the upscaler of this model");
    if (width % groups)
        throw Error(ErrorCode::model_mismatch, "[" + files.files().front()->path() + "] has " + std::to_string(width) +
                                                   " channels inside, which " + std::to_string(groups) +
                                                   " groups do not divide");
    initial_conv_ = declare_conv3d(weights_, "initial_conv", channels, width, volume);
    initial_norm_ = declare_norm("initial_norm", width);
    before_ = declare_blocks("res_blocks", width);
    const std::array<int, 3> stride = stride_of(kind_);
    const int64_t cells = stride[0] * stride[1] * stride[2];
    ConvOptions options;
    options.out_axes = {{cells, 1}, {width, cells}};  // stored with the channel slowest, wanted with it fastest
    const bool in_time = kind_ == Kind::time_2;
    upsampler_ = declare_conv3d(weights_, kind_ == Kind::space_3_2 ? "upsampler.conv" : "upsampler.0", width,
                                cells * width, in_time ? volume : picture, options);
    after_ = declare_blocks("post_upsample_res_blocks", width);
    final_conv_ = declare_conv3d(weights_, "final_conv", width, channels, volume);
    check_weights({&weights_});
}

std::array<int64_t, 3> LatentUpsampler::result(std::array<int64_t, 3> shape) const {
    auto [frames, height, width] = shape;
    if (kind_ == Kind::time_2) return {2 * frames - 1, height, width};
    if (kind_ == Kind::space_2) return {frames, 2 * height, 2 * width};
    if (height % 2 || width % 2)
        throw Error(ErrorCode::invalid_request,
                    "[upscaler] a factor of 1.5 needs sides that are multiples of 64 pixels before it, got " +
                        std::to_string(32 * width) + "x" + std::to_string(32 * height));
    return {frames, height / 2 * 3, width / 2 * 3};
}

namespace {

// Normalised over a 32nd of the channels and all pixels and frames.
ggml_tensor* group_norm(Plan& g, ggml_tensor* x, ggml_tensor* w, ggml_tensor* b) {
    constexpr float eps = 1e-5f;
    ggml_context* ctx = g.ctx();
    const int64_t size = x->ne[0] / groups, pixels = x->ne[1] * x->ne[2] * x->ne[3];
    ggml_tensor* y = ggml_reshape_3d(ctx, x, size, groups, pixels);
    y = ggml_cont(ctx, ggml_permute(ctx, y, 0, 2, 1, 3));  // [size, pixels, groups]
    y = ggml_norm(ctx, ggml_reshape_2d(ctx, y, size * pixels, groups), eps);
    y = ggml_reshape_3d(ctx, y, size, pixels, groups);
    y = ggml_cont(ctx, ggml_permute(ctx, y, 0, 2, 1, 3));
    y = ggml_reshape_4d(ctx, y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
    return ggml_add(ctx, ggml_mul(ctx, y, w), b);
}

}  // namespace

ggml_tensor* LatentUpsampler::upsample(Plan& g, ggml_tensor* x) const {
    ggml_context* ctx = g.ctx();
    x = depth_to_space(g, conv3d(g, upsampler_, x, TimePadding::zeros), stride_of(kind_));
    if (kind_ == Kind::space_3_2) return blurred_half(g, x);
    if (kind_ == Kind::space_2) return x;
    // The first frame stands for one frame of the clip, so it has no twin.
    return ggml_view_4d(ctx, x, x->ne[0], x->ne[1], x->ne[2], x->ne[3] - 1, x->nb[1], x->nb[2], x->nb[3], x->nb[3]);
}

LatentUpsampler::Built LatentUpsampler::build(std::array<int64_t, 3> shape, Trace* trace) const {
    Built built{std::make_unique<Plan>(workspace_.backend(), "upscaler", trace), nullptr, nullptr};
    Plan& g = *built.plan;
    ggml_context* ctx = g.ctx();
    const auto conv = [&](const Conv3d& c, ggml_tensor* x) { return conv3d(g, c, x, TimePadding::zeros); };
    const auto norm = [&](const GroupNorm& n, ggml_tensor* x) { return group_norm(g, x, n.w, n.b); };
    const auto run = [&](const std::vector<Block>& blocks, const std::string& list, ggml_tensor* x) {
        for (size_t i = 0; i < blocks.size(); ++i) {
            const Block& b = blocks[i];
            ggml_tensor* h = ggml_silu(ctx, norm(b.norm1, conv(b.conv1, x)));
            x = ggml_silu(ctx, ggml_add(ctx, x, norm(b.norm2, conv(b.conv2, h))));
            g.stage(x, list + "." + std::to_string(i));
        }
        return x;
    };
    built.in = g.input("latents", GGML_TYPE_F32, {channels_, shape[2], shape[1], shape[0]});
    ggml_tensor* x = g.stage(norm(initial_norm_, conv(initial_conv_, built.in)), "initial_norm");
    x = run(before_, "res_blocks", ggml_silu(ctx, x));
    x = g.stage(upsample(g, x), "upsampler");
    x = conv(final_conv_, run(after_, "post_upsample_res_blocks", x));
    built.out = g.output(x, "final_conv");
    return built;
}

MemoryUse LatentUpsampler::measure(std::array<int64_t, 3> shape) const {
    const Built built = build(shape, nullptr);
    MemoryUse use = workspace_.measure_all(*built.plan);
    use.host += 2 * ggml_nbytes(built.in) + ggml_nbytes(built.out);
    return use;
}

Array LatentUpsampler::upsample(const Array& latents, Trace* trace) const {
    const std::array<int64_t, 3> shape = {latents.dim(1), latents.dim(2), latents.dim(3)};
    const auto [frames, height, width] = result(shape);
    const Built built = build(shape, trace);
    const int64_t cells = shape[0] * shape[1] * shape[2];
    std::vector<float> input(latents.data.size());
    for (int64_t c = 0; c < channels_; ++c)
        for (int64_t i = 0; i < cells; ++i)
            input[static_cast<size_t>(i * channels_ + c)] = latents.data[static_cast<size_t>(c * cells + i)];
    built.plan->set(built.in, input);
    workspace_.run(*built.plan);
    const std::vector<float> values = built.plan->get(built.out);
    Array out{{channels_, frames, height, width}, std::vector<float>(values.size())};
    const int64_t more = frames * height * width;
    for (int64_t c = 0; c < channels_; ++c)
        for (int64_t i = 0; i < more; ++i)
            out.data[static_cast<size_t>(c * more + i)] = values[static_cast<size_t>(i * channels_ + c)];
    return out;
}

}  // namespace sdltx
