#include "ops.h"

#include <algorithm>

namespace sdltx {

namespace {

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

// Frames [first, first + n) of a volume.
ggml_tensor* frames(Plan& g, ggml_tensor* x, int64_t first, int64_t n) {
    if (first == 0 && n == x->ne[3]) return x;
    return ggml_view_4d(g.ctx(), x, x->ne[0], x->ne[1], x->ne[2], n, x->nb[1], x->nb[2], x->nb[3], offset(x, 3, first));
}

// `row` [C] at every place of a new volume [C, W, H, F]; null = zeros.
ggml_tensor* filled(Plan& g, ggml_tensor* row, int64_t channels, int64_t width, int64_t height, int64_t depth) {
    if (!row) row = g.zeros(channels);
    return ggml_repeat_4d(g.ctx(), row, channels, width, height, depth);
}

// Output frames [to, to + n) of a convolution and the input frame that kernel frame t meets at the first of them.
struct FrameRun {
    int64_t to, n, from;
};

// Runs for kernel frame t that together cover output frames [first, first + count), repeated frames one by one.
std::vector<FrameRun> frame_runs(int64_t first, int64_t count, int64_t depth, int64_t t, int64_t kt, TimePadding time) {
    const int64_t shift = t - (time == TimePadding::replicate ? (kt - 1) / 2 : kt - 1);
    std::vector<FrameRun> runs;
    const int64_t begin = std::clamp(-shift, first, first + count),
                  end = std::clamp(depth - shift, begin, first + count);
    if (end > begin) runs.push_back({begin, end - begin, begin + shift});
    if (time == TimePadding::causal_zeros) return runs;
    for (int64_t f = first; f < begin; ++f) runs.push_back({f, 1, 0});
    for (int64_t f = end; f < first + count; ++f) runs.push_back({f, 1, depth - 1});
    return runs;
}

}  // namespace

ggml_tensor* product(Plan& g, ggml_tensor* w, ggml_tensor* x) {
    ggml_tensor* y = ggml_mul_mat(g.ctx(), w, x);
    // For half precision it says where sums are kept. For other types some devices would widen the weights first.
    if (w->type == GGML_TYPE_F16) ggml_mul_mat_set_prec(y, GGML_PREC_F32);
    return y;
}

Linear declare_linear(Weights& weights, const std::string& name, int64_t in, int64_t out, bool bias) {
    return {weights.matrix(name + ".weight", {out, in}), bias ? weights.vector(name + ".bias", {out}) : nullptr};
}

ggml_tensor* linear(Plan& g, const Linear& l, ggml_tensor* x) {
    ggml_tensor* y = product(g, l.w, x);
    return l.b ? ggml_add(g.ctx(), y, l.b) : y;
}

ggml_tensor* rms_norm(Plan& g, ggml_tensor* x, ggml_tensor* w, float eps) {
    // As rows of one matrix: GPUs take no more than 65,535 along other axes.
    const bool flat = ggml_is_matrix(x) || !ggml_is_contiguous(x);
    ggml_tensor* y = ggml_rms_norm(g.ctx(), flat ? x : ggml_reshape_2d(g.ctx(), x, x->ne[0], ggml_nrows(x)), eps);
    if (w) y = ggml_mul(g.ctx(), y, w);
    return flat ? y : ggml_reshape_4d(g.ctx(), y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

ggml_tensor* modulate(Plan& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift) {
    return ggml_add(g.ctx(), ggml_mul(g.ctx(), x, scale1), shift);
}

ggml_tensor* gelu_tanh(Plan& g, ggml_tensor* x) {
    if (!g.backend().exact()) return ggml_gelu(g.ctx(), x);
    // 0.5 (1 + tanh u) = sigmoid(2u)
    constexpr float c = 1.5957691216057308f;  // 2 sqrt(2/pi)
    ggml_tensor* factor = ggml_scale_bias(g.ctx(), ggml_sqr(g.ctx(), x), c * 0.044715f, c);
    return ggml_mul(g.ctx(), x, ggml_sigmoid(g.ctx(), ggml_mul(g.ctx(), x, factor)));
}

ggml_tensor* attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_context* ctx = g.ctx();
    const int64_t head_dim = q->ne[0], heads = q->ne[1], tokens = q->ne[2];
    q = ggml_permute(ctx, q, 0, 2, 1, 3);
    k = ggml_permute(ctx, k, 0, 2, 1, 3);
    v = ggml_permute(ctx, v, 0, 2, 1, 3);
    // For a single query ggml's CPU kernel splits the keys by thread, which would make the sum depend on the thread
    // count.
    if (tokens == 1) {
        ggml_tensor* scores = product(g, k, q);
        scores = ggml_soft_max_ext(ctx, scores, mask, scale, 0.0f);
        ggml_tensor* values = ggml_cont(ctx, ggml_transpose(ctx, v));
        ggml_tensor* out = product(g, values, scores);
        return ggml_reshape_3d(ctx, ggml_cont(ctx, ggml_permute(ctx, out, 0, 2, 1, 3)), head_dim, heads, tokens);
    }
    // GPU kernels take half precision only. On the CPU it would be slower, and with few queries the sums over the keys
    // would be in half precision too.
    if (!g.backend().uses_host_memory() && !g.backend().exact()) {
        k = ggml_cast(ctx, k, GGML_TYPE_F16);
        v = ggml_cast(ctx, v, GGML_TYPE_F16);
    }
    ggml_tensor* out = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0.0f, 0.0f);
    ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return ggml_reshape_3d(ctx, out, head_dim, heads, tokens);
}

ggml_tensor* rotate_half(Plan& g, ggml_tensor* x, ggml_tensor* cos, ggml_tensor* sin) {
    ggml_context* ctx = g.ctx();
    const int64_t half = x->ne[0] / 2;
    ggml_tensor* a = ggml_view_3d(ctx, x, half, x->ne[1], x->ne[2], x->nb[1], x->nb[2], 0);
    ggml_tensor* b =
        ggml_view_3d(ctx, x, half, x->ne[1], x->ne[2], x->nb[1], x->nb[2], static_cast<size_t>(half) * x->nb[0]);
    ggml_tensor* first = ggml_sub(ctx, ggml_mul(ctx, a, cos), ggml_mul(ctx, b, sin));
    ggml_tensor* second = ggml_add(ctx, ggml_mul(ctx, b, cos), ggml_mul(ctx, a, sin));
    return ggml_concat(ctx, first, second, 0);
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

ggml_tensor* pad_width(Plan& g, ggml_tensor* x, int64_t before, int64_t after) {
    if (before == 0 && after == 0) return x;
    ggml_tensor* y = filled(g, nullptr, x->ne[0], before + x->ne[1] + after, x->ne[2], x->ne[3]);
    ggml_tensor* inside = ggml_view_4d(g.ctx(), y, x->ne[0], x->ne[1], x->ne[2], x->ne[3], y->nb[1], y->nb[2], y->nb[3],
                                       offset(y, 1, before));
    return g.after(y, ggml_cpy(g.ctx(), x, inside));
}

Conv3d declare_conv3d(Weights& weights, const std::string& name, int64_t in, int64_t out, std::array<int, 3> kernel,
                      const std::vector<Axis>& out_axes, bool exact, bool bias) {
    const int64_t kt = kernel[0], kh = kernel[1], kw = kernel[2], taps = kt * kh * kw;
    const bool single = exact || weights.exact() || weights.stored_type(name + ".weight") == GGML_TYPE_F32;
    const std::vector<Axis> out_order = out_axes.empty() ? std::vector<Axis>{{out, 1}} : out_axes;
    Conv3d c;
    c.kernel = kernel;
    // stored (out, in, kt, kh, kw) -> (kt, kh, out, kw, in)
    std::vector<Axis> order{{kt, kh * kw}, {kh, kw}};
    for (const Axis& a : out_order) order.push_back({a.length, a.stride * in * taps});
    order.insert(order.end(), {{kw, 1}, {in, taps}});
    c.w = weights.permuted(name + ".weight", {out, in, kt, kh, kw}, single ? GGML_TYPE_F32 : GGML_TYPE_BF16,
                           {kw * in, out, kh, kt}, order);
    if (bias) c.b = weights.permuted(name + ".bias", {out}, GGML_TYPE_F32, {out}, out_order);
    return c;
}

ggml_tensor* conv3d(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual,
                    int64_t piece_bytes) {
    const int64_t kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2];
    const int64_t channels = x->ne[0], width = x->ne[1], height = x->ne[2], depth = x->ne[3], out = c.w->ne[1];
    const int64_t row = width + kw / 2 * 2;  // with its padding
    // The CPU's product converts the runs as it reads them, unless they have the type of the kernel already.
    const bool gather = !g.backend().uses_host_memory() || c.w->type == GGML_TYPE_F32;
    const int64_t row_bytes =
        row * (kw * channels * (gather ? 4 : static_cast<int64_t>(ggml_type_size(c.w->type))) + out * 4);
    if (piece_bytes == 0) piece_bytes = std::max(default_piece_bytes, row_bytes * height * depth / max_pieces);
    const int64_t max_rows = std::max<int64_t>(1, piece_bytes / row_bytes);
    const int64_t piece_rows = std::min(height, max_rows);
    const int64_t piece_frames = std::clamp<int64_t>(max_rows / height, 1, depth);

    ggml_tensor* y = residual ? residual : filled(g, c.b, out, width, height, depth);
    if (residual && c.b) y = ggml_add(g.ctx(), residual, c.b);
    // Adds what kernel row (t, h) gives to rows [first, first + rows) of the frames of `run`, which are counted from
    // the first one of `in`.
    auto add = [&](ggml_tensor* in, int64_t t, int64_t h, const FrameRun& run, int64_t first, int64_t rows) {
        ggml_context* ctx = g.ctx();
        const int64_t pixels = (rows - 1) * row + width;  // the padding between rows included
        ggml_tensor* w = ggml_view_2d(ctx, c.w, kw * channels, out, c.w->nb[1], offset(c.w, 3, t) + offset(c.w, 2, h));
        ggml_tensor* runs =
            window_view(g, in, kw, pixels, run.n, offset(in, 3, run.from) + offset(in, 2, first + h - kh / 2));
        ggml_tensor* part = product(g, w, gather ? ggml_cont(ctx, runs) : runs);
        part = ggml_view_4d(ctx, part, out, width, rows, run.n, part->nb[1], offset(part, 1, row), part->nb[2], 0);
        ggml_tensor* to = ggml_view_4d(ctx, y, out, width, rows, run.n, y->nb[1], y->nb[2], y->nb[3],
                                       offset(y, 3, run.to) + offset(y, 2, first));
        y = g.after(y, ggml_add_inplace(ctx, to, part));
    };
    for (int64_t f = 0; f < depth; f += piece_frames) {
        const int64_t count = std::min(piece_frames, depth - f), reach = kt - 1;
        const int64_t lowest = std::max<int64_t>(0, f - reach), end = std::min(depth, f + count + reach);
        ggml_tensor* in = pad_width(g, frames(g, x, lowest, end - lowest), kw / 2, kw / 2);
        for (int64_t r = 0; r < height; r += piece_rows)
            for (int64_t t = 0; t < kt; ++t)
                for (FrameRun run : frame_runs(f, count, depth, t, kt, time)) {
                    run.from -= lowest;
                    for (int64_t h = 0; h < kh; ++h) {
                        // Beyond the frame's edge there are zeros, which add nothing.
                        const int64_t first = std::max(r, kh / 2 - h);
                        const int64_t last = std::min({r + piece_rows, height, height + kh / 2 - h});
                        if (last > first) add(in, t, h, run, first, last - first);
                    }
                }
        g.compute_next(y);
    }
    return y;
}

ggml_tensor* depth_to_space(Plan& g, ggml_tensor* x, std::array<int, 3> stride) {
    ggml_context* ctx = g.ctx();
    const int64_t s1 = stride[0], s2 = stride[1], s3 = stride[2];
    const int64_t width = x->ne[1], height = x->ne[2], depth = x->ne[3], channels = x->ne[0] / (s1 * s2 * s3);
    // Two exchanges of neighbouring axes: (s1 s2) with width, then s1 with height.
    if (s1 * s2 > 1) {
        x = ggml_reshape_4d(ctx, x, channels * s3, s1 * s2, width, height * depth);
        x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));
    }
    if (s1 > 1) {
        x = ggml_reshape_4d(ctx, x, channels * s3 * width * s2, s1, height, depth);
        x = ggml_cont(ctx, ggml_permute(ctx, x, 0, 2, 1, 3));
    }
    return ggml_reshape_4d(ctx, x, channels, s3 * width, s2 * height, s1 * depth);
}

}  // namespace sdltx
