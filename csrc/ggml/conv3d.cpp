#include "conv3d.h"

#include <algorithm>

#include "cpu_kernels.h"

namespace sdltx {

namespace {

constexpr int64_t windows_piece_bytes = int64_t{8} << 20, max_windows_pieces = 32;
constexpr int64_t columns_piece_bytes = int64_t{256} << 20;
constexpr int64_t own_piece_bytes = int64_t{64} << 20;
constexpr int64_t max_columns_width = 65535;  // Vulkan ends the process beyond its limit, which is this on most GPUs

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

// Frames [first, first + n) of a volume.
ggml_tensor* frames(Plan& g, ggml_tensor* x, int64_t first, int64_t n) {
    if (first == 0 && n == x->ne[3]) return x;
    return ggml_view_4d(g.ctx(), x, x->ne[0], x->ne[1], x->ne[2], n, x->nb[1], x->nb[2], x->nb[3], offset(x, 3, first));
}

// Padding before the first frame.
int64_t frames_before(TimePadding time, int64_t kt) {
    return time == TimePadding::replicate || time == TimePadding::zeros ? (kt - 1) / 2 : kt - 1;
}
// Whether it is made of the frames at the ends.
bool repeats(TimePadding time) { return time == TimePadding::causal || time == TimePadding::replicate; }

// Output frames [to, to + n) of a convolution and the input frame that kernel frame t meets at the first of them.
struct FrameRun {
    int64_t to, n, from;
};

// Runs for kernel frame t that together cover output frames [first, first + count), repeated frames one by one.
std::vector<FrameRun> frame_runs(int64_t first, int64_t count, int64_t depth, int64_t t, int64_t kt, TimePadding time) {
    const int64_t shift = t - frames_before(time, kt);
    std::vector<FrameRun> runs;
    const int64_t begin = std::clamp(-shift, first, first + count),
                  end = std::clamp(depth - shift, begin, first + count);
    if (end > begin) runs.push_back({begin, end - begin, begin + shift});
    if (!repeats(time)) return runs;
    for (int64_t f = first; f < begin; ++f) runs.push_back({f, 1, 0});
    for (int64_t f = end; f < first + count; ++f) runs.push_back({f, 1, depth - 1});
    return runs;
}

// Where the products are added up: the bias and the residual.
ggml_tensor* accumulator(Plan& g, const Conv3d& c, ggml_tensor* x, ggml_tensor* residual) {
    // What is added to must not be what somebody else reads.
    if (residual) return c.b ? ggml_add(g.ctx(), residual, c.b) : ggml_cont(g.ctx(), residual);
    return filled(g, c.b, c.w->ne[1], x->ne[1], x->ne[2], x->ne[3]);
}

// By our own kernel: a product over the pixels of some frames, which are packed with what is beside them. The taps of a
// line lie one after the other and are one matrix, unless they are dilated.
ggml_tensor* conv3d_own(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual,
                        int64_t piece_bytes, int64_t dilation) {
    const int64_t kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2], before = frames_before(time, kt);
    const int64_t channels = x->ne[0], width = x->ne[1], height = x->ne[2], depth = x->ne[3], out = c.w->ne[1];
    const Kernels& kernels = *cpu_kernels().own();
    const bool exact = c.w->type == GGML_TYPE_F32 || !kernels.fast;
    const int64_t pixel = exact ? channels : kernels.packed_units(channels), beside = kw / 2 * dilation,
                  line = (width + 2 * beside) * pixel, frame = (height + kh / 2 * 2) * line;
    std::vector<int64_t> offsets;
    for (int64_t t = 0; t < kt; ++t)
        for (int64_t h = 0; h < kh; ++h)
            for (int64_t w = 0; w < (dilation > 1 ? kw : 1); ++w)
                offsets.push_back(t * frame + h * line + w * dilation * pixel);
    const auto matrices = static_cast<int64_t>(offsets.size()), columns = dilation > 1 ? channels : kw * channels;
    const auto bytes = static_cast<int64_t>(kernels.product_scratch(columns, matrices, g.backend().threads(), exact));
    const int64_t work = ggml_nelements(c.w) * width * height / own_speedup;  // of a frame
    const int64_t fitting = (piece_bytes ? piece_bytes : own_piece_bytes) / (frame * 4) - (kt - 1);
    const int64_t frames_of_piece =
        std::clamp<int64_t>(std::min(fitting, g.backend().patience() / std::max<int64_t>(1, work)), 1, depth);
    ggml_tensor *y = uninitialised(g, GGML_TYPE_F32, {out, width, height, depth}),
                *scratch = uninitialised(g, GGML_TYPE_I8, {bytes, 1, 1, 1});
    const bool reflect = c.space == SpacePadding::reflect, repeat = repeats(time);
    for (int64_t f = 0; f < depth; f += frames_of_piece) {
        const int64_t count = std::min(frames_of_piece, depth - f);
        const auto pack = [=, &kernels](ggml_tensor* dst, Share share) {
            const ggml_tensor* from = dst->src[0];
            const auto floats = [&](int axis) { return static_cast<int64_t>(from->nb[axis] / sizeof(float)); };
            kernels.pack_volume(
                {static_cast<const float*>(from->data), channels, width, height, depth, floats(1), floats(2), floats(3),
                 beside, kh / 2, reflect, f - before, count + kt - 1, repeat, dst->data, exact},
                share);
        };
        ggml_tensor* packed = g.computed(GGML_TYPE_I32, {frame, count + kt - 1, 1, 1}, {x}, pack);
        const bool biased = c.b, added = residual;
        const auto multiply = [=, &kernels](ggml_tensor* dst, Share share) {
            ggml_tensor* const* sources = dst->src + 1;  // w, packed, scratch, bias, residual
            ProductJob job{};
            job.w = weight_rows(sources[0]);
            job.w.matrices = matrices;
            if (dilation > 1) job.w.matrix_stride = static_cast<int64_t>(ggml_row_size(sources[0]->type, channels));
            job.columns = columns;
            job.x = {sources[1]->data, width, height, pixel, line, frame, offsets.data()};
            job.rows = width * height * count;
            job.y = static_cast<float*>(dst->data);
            job.y_stride = out;
            if (biased) job.bias = static_cast<const float*>(sources[3]->data);
            if (added) job.residual = static_cast<const float*>(sources[biased ? 4 : 3]->data);
            job.scratch = sources[2]->data;
            job.exact = exact;
            kernels.product(job, share);
        };
        std::vector<ggml_tensor*> sources{c.w, packed, scratch};
        if (biased) sources.push_back(c.b);
        if (added) sources.push_back(frames(g, residual, f, count));
        ggml_tensor* to =
            ggml_view_4d(g.ctx(), y, out, width, height, count, y->nb[1], y->nb[2], y->nb[3], offset(y, 3, f));
        y = g.after(y, g.computed_in(to, sources, multiply));
        g.compute_next(y);
    }
    return y;
}

// Whether that can be.
bool is_own(const Plan& g, const Conv3d& c, const ggml_tensor* x, const ggml_tensor* residual) {
    if (!g.backend().uses_host_memory() || x->type != GGML_TYPE_F32 || x->nb[0] != sizeof(float)) return false;
    if (residual && !ggml_is_contiguous(residual)) return false;
    return c.w->type == GGML_TYPE_F32 || !cpu_kernels().own()->fast || x->ne[0] % 2 == 0;
}

// Frames with `columns` and `rows` of mirrored pixels on each side.
ggml_tensor* mirrored(Plan& g, ggml_tensor* x, int64_t columns, int64_t rows) {
    ggml_context* ctx = g.ctx();
    const int64_t width = x->ne[1], height = x->ne[2];
    ggml_tensor* y = filled(g, nullptr, x->ne[0], width + 2 * columns, height + 2 * rows, x->ne[3]);
    // Pixels [c, c + w) x [r, r + h) of `from` to those of y that begin at (to_c, to_r).
    const auto copy = [&](ggml_tensor* from, int64_t c, int64_t r, int64_t to_c, int64_t to_r, int64_t w, int64_t h) {
        const auto part = [&](ggml_tensor* t, int64_t column, int64_t line) {
            return ggml_view_4d(ctx, t, t->ne[0], w, h, t->ne[3], t->nb[1], t->nb[2], t->nb[3],
                                offset(t, 1, column) + offset(t, 2, line));
        };
        y = g.after(y, ggml_cpy(ctx, part(from, c, r), part(y, to_c, to_r)));
    };
    const auto mirror = [](int64_t i, int64_t n) { return n == 1 ? 0 : i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i; };
    copy(x, 0, 0, columns, rows, width, height);
    for (int64_t i = 1; i <= columns; ++i)
        for (int64_t at : {-i, width - 1 + i}) copy(x, mirror(at, width), 0, columns + at, rows, 1, height);
    for (int64_t i = 1; i <= rows; ++i)  // corners with them
        for (int64_t at : {-i, height - 1 + i})
            copy(y, 0, rows + mirror(at, height), 0, rows + at, width + 2 * columns, 1);
    return y;
}

ggml_tensor* conv3d_windows(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual,
                            int64_t piece_bytes) {
    const int64_t kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2];
    const int64_t channels = x->ne[0], width = x->ne[1], height = x->ne[2], depth = x->ne[3], out = c.w->ne[1];
    const int64_t row = width + kw / 2 * 2;  // with its padding
    // The CPU's product converts the runs as it reads them, unless they have the type of the kernel already.
    const bool gather = !g.backend().uses_host_memory() || c.w->type == GGML_TYPE_F32;
    const int64_t row_bytes =
        row * (kw * channels * (gather ? 4 : static_cast<int64_t>(ggml_type_size(c.w->type))) + out * 4);
    if (piece_bytes == 0) piece_bytes = std::max(windows_piece_bytes, row_bytes * height * depth / max_windows_pieces);
    const int64_t row_work = row * kw * channels * out;
    const int64_t max_rows = std::max<int64_t>(1, std::min(piece_bytes / row_bytes, g.backend().patience() / row_work));
    const int64_t piece_rows = std::min(height, max_rows);
    const int64_t piece_frames = std::clamp<int64_t>(max_rows / height, 1, depth);

    const bool reflect = c.space == SpacePadding::reflect;
    const int64_t above = reflect ? 0 : kh / 2;  // rows that are not there
    ggml_tensor* y = accumulator(g, c, x, residual);
    // Adds what kernel row (t, h) gives to rows [first, first + rows) of the frames of `run`, which are counted from
    // the first one of `in`.
    auto add = [&](ggml_tensor* in, int64_t t, int64_t h, const FrameRun& run, int64_t first, int64_t rows) {
        ggml_context* ctx = g.ctx();
        const int64_t pixels = (rows - 1) * row + width;  // the padding between rows included
        ggml_tensor* w = ggml_view_2d(ctx, c.w, kw * channels, out, c.w->nb[1], offset(c.w, 3, t) + offset(c.w, 2, h));
        ggml_tensor* runs =
            window_view(g, in, kw, pixels, run.n, offset(in, 3, run.from) + offset(in, 2, first + h - above));
        ggml_tensor* part = product(g, w, gather ? ggml_cont(ctx, runs) : runs);
        part = ggml_view_4d(ctx, part, out, width, rows, run.n, part->nb[1], offset(part, 1, row), part->nb[2], 0);
        ggml_tensor* to = ggml_view_4d(ctx, y, out, width, rows, run.n, y->nb[1], y->nb[2], y->nb[3],
                                       offset(y, 3, run.to) + offset(y, 2, first));
        y = g.after(y, ggml_add_inplace(ctx, to, part));
    };
    for (int64_t f = 0; f < depth; f += piece_frames) {
        const int64_t count = std::min(piece_frames, depth - f), reach = kt - 1;
        const int64_t lowest = std::max<int64_t>(0, f - reach), end = std::min(depth, f + count + reach);
        ggml_tensor* in = frames(g, x, lowest, end - lowest);
        in = reflect ? mirrored(g, in, kw / 2, kh / 2) : pad_width(g, in, kw / 2, kw / 2);
        for (int64_t r = 0; r < height; r += piece_rows)
            for (int64_t t = 0; t < kt; ++t)
                for (FrameRun run : frame_runs(f, count, depth, t, kt, time)) {
                    run.from -= lowest;
                    for (int64_t h = 0; h < kh; ++h) {
                        // Zeros beyond the frame's edge would add nothing.
                        const int64_t first = std::max(r, above - h);
                        const int64_t last = std::min({r + piece_rows, height, reflect ? height : height + above - h});
                        if (last > first) add(in, t, h, run, first, last - first);
                    }
                }
        g.compute_next(y);
    }
    return y;
}

// Channels slowest, with all padding: [W + kw - 1, H + kh - 1, F + kt - 1, C].
ggml_tensor* padded_planes(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time) {
    ggml_context* ctx = g.ctx();
    const int64_t kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2];
    const int64_t width = x->ne[1], height = x->ne[2], depth = x->ne[3];
    const int64_t before = frames_before(time, kt), after = kt - 1 - before;
    const auto planes = [&](ggml_tensor* volume) { return ggml_permute(ctx, volume, 3, 0, 1, 2); };  // [W, H, F, C]
    if (kt * kh * kw == 1) return ggml_cont(ctx, planes(x));
    const bool reflect = c.space == SpacePadding::reflect;
    if (reflect) x = mirrored(g, x, kw / 2, kh / 2);
    const int64_t left = reflect ? 0 : kw / 2, above = reflect ? 0 : kh / 2;
    ggml_tensor* y = filled(g, nullptr, width + kw - 1, height + kh - 1, depth + kt - 1, x->ne[0]);
    // Frames [from, from + n) of x to frames [to, to + n) of y.
    const auto put = [&](int64_t from, int64_t to, int64_t n) {
        ggml_tensor* target = ggml_view_4d(ctx, y, x->ne[1], x->ne[2], n, y->ne[3], y->nb[1], y->nb[2], y->nb[3],
                                           offset(y, 2, to) + offset(y, 1, above) + offset(y, 0, left));
        y = g.after(y, ggml_cpy(ctx, planes(frames(g, x, from, n)), target));
    };
    put(0, before, depth);
    if (!repeats(time)) return y;
    for (int64_t i = 0; i < before; ++i) put(0, i, 1);
    for (int64_t i = 0; i < after; ++i) put(depth - 1, before + depth + i, 1);
    return y;
}

ggml_tensor* conv3d_columns(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual,
                            int64_t piece_bytes) {
    const int kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2];
    const int64_t channels = x->ne[0], width = x->ne[1], height = x->ne[2], depth = x->ne[3], out = c.w->ne[1];
    // A slice is some frames, or some rows of one frame, or some pixels of one row.
    const int64_t pixel_bytes = (c.w->ne[0] + out) * static_cast<int64_t>(sizeof(float));
    const int64_t pixels =
        std::max<int64_t>(1, std::min((piece_bytes ? piece_bytes : columns_piece_bytes) / pixel_bytes,
                                      g.backend().patience() / ggml_nelements(c.w)));
    const int64_t piece_width = std::min({width, pixels, max_columns_width});
    const int64_t piece_rows = std::clamp<int64_t>(pixels / width, 1, height);
    const int64_t piece_frames = std::clamp<int64_t>(pixels / (width * height), 1, depth);

    ggml_tensor* planes = padded_planes(g, c, x, time);
    ggml_tensor* shape = ggml_reshape_4d(g.ctx(), c.w, kw, kh, kt, channels * out);
    ggml_tensor* y = accumulator(g, c, x, residual);
    const auto slice = [&](int64_t f, int64_t r, int64_t p) {
        ggml_context* ctx = g.ctx();
        const int64_t frames = std::min(piece_frames, depth - f), rows = std::min(piece_rows, height - r),
                      across = std::min(piece_width, width - p);
        ggml_tensor* part = ggml_view_4d(ctx, planes, across + kw - 1, rows + kh - 1, frames + kt - 1, channels,
                                         planes->nb[1], planes->nb[2], planes->nb[3],
                                         offset(planes, 2, f) + offset(planes, 1, r) + offset(planes, 0, p));
        // CUDA takes packed planes only, and would leave others to the CPU.
        if (!ggml_is_contiguous(part)) part = ggml_cont(ctx, part);
        ggml_tensor* columns = ggml_im2col_3d(ctx, shape, part, channels, 1, 1, 1, 0, 0, 0, 1, 1, 1,
                                              GGML_TYPE_F32);  // [kw*kh*kt*C, across, rows, frames]
        columns = ggml_reshape_2d(ctx, columns, columns->ne[0], across * rows * frames);
        ggml_tensor* sums = ggml_reshape_4d(ctx, product(g, c.w, columns), out, across, rows, frames);
        ggml_tensor* to = ggml_view_4d(ctx, y, out, across, rows, frames, y->nb[1], y->nb[2], y->nb[3],
                                       offset(y, 3, f) + offset(y, 2, r) + offset(y, 1, p));
        y = g.after(y, ggml_add_inplace(ctx, to, sums));
        g.compute_next(y);  // one slice after the other
    };
    for (int64_t f = 0; f < depth; f += piece_frames)
        for (int64_t r = 0; r < height; r += piece_rows)
            for (int64_t p = 0; p < width; p += piece_width) slice(f, r, p);
    return y;
}

}  // namespace

Conv3d declare_conv3d(Weights& weights, const std::string& name, int64_t in, int64_t out, std::array<int, 3> kernel,
                      const ConvOptions& options) {
    const int64_t kt = kernel[0], kh = kernel[1], kw = kernel[2], taps = kt * kh * kw;
    const bool stored_single = weights.stored_type(name + ".weight") == GGML_TYPE_F32;
    // Activations of pictures do not fit into halves, which Vulkan makes of them unless the weights have a wide range.
    const bool single = options.exact || weights.exact() || (stored_single && !weights.backend().multiplies_halves());
    const ggml_type type = single ? GGML_TYPE_F32 : GGML_TYPE_BF16;
    const std::vector<Axis> out_order = options.out_axes.empty() ? std::vector<Axis>{{out, 1}} : options.out_axes;
    Conv3d c;
    c.kernel = kernel;
    c.space = options.space;
    c.lowering =
        options.lowering.value_or(weights.backend().uses_host_memory() ? ConvLowering::own : ConvLowering::columns);
    // stored (out, in, kt, kh, kw) -> (kt, kh, out, kw, in), or only another order of `out`
    const bool windows = c.lowering != ConvLowering::columns;
    std::vector<Axis> order;
    if (windows) order = {{kt, kh * kw}, {kh, kw}};
    for (const Axis& a : out_order) order.push_back({a.length, a.stride * in * taps});
    if (windows)
        order.insert(order.end(), {{kw, 1}, {in, taps}});
    else
        order.push_back({in * taps, 1});
    const std::vector<int64_t> ne =
        windows ? std::vector<int64_t>{kw * in, out, kh, kt} : std::vector<int64_t>{taps * in, out};
    c.w = weights.permuted(name + ".weight", {out, in, kt, kh, kw}, type, ne, order);
    if (options.bias) c.b = weights.permuted(name + ".bias", {out}, GGML_TYPE_F32, {out}, out_order);
    return c;
}

ggml_tensor* conv3d(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual,
                    int64_t piece_bytes) {
    if (c.lowering == ConvLowering::own)
        return is_own(g, c, x, residual) ? conv3d_own(g, c, x, time, residual, piece_bytes, 1)
                                         : conv3d_windows(g, c, x, time, residual, piece_bytes);
    return c.lowering == ConvLowering::windows ? conv3d_windows(g, c, x, time, residual, piece_bytes)
                                               : conv3d_columns(g, c, x, time, residual, piece_bytes);
}

ggml_tensor* dilated_conv1d(Plan& g, const Conv3d& c, ggml_tensor* x, int64_t dilation, ggml_tensor* residual) {
    x = ggml_reshape_4d(g.ctx(), x, x->ne[0], x->ne[1], 1, 1);
    ggml_tensor* y = conv3d_own(g, c, x, TimePadding::replicate, residual, 0, dilation);
    return ggml_reshape_2d(g.ctx(), y, y->ne[0], y->ne[1]);
}

bool can_dilate(const Plan& g, const Conv3d& c, const ggml_tensor* x, const ggml_tensor* residual) {
    return c.lowering == ConvLowering::own && is_own(g, c, x, residual);
}

// ggml_view's bounds check does not foresee overlapping runs, so the extents are set by hand.
ggml_tensor* window_view(Plan& g, ggml_tensor* x, int64_t kw, int64_t pixels, int64_t frames, size_t at) {
    ggml_tensor* v = ggml_view_1d(g.ctx(), x, 1, at);
    const int64_t ne[3] = {kw * x->ne[0], pixels, frames};
    const size_t nb[3] = {x->nb[1], x->nb[3], x->nb[3] * static_cast<size_t>(frames)};
    for (int d = 0; d < 3; ++d) {
        v->ne[d] = ne[d];
        v->nb[d + 1] = nb[d];
    }
    return v;
}

}  // namespace sdltx
