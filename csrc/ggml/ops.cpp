#include "ops.h"

#include <algorithm>

namespace sdltx {

namespace {

// Bound on the gathered window rows of one piece of a convolution (a single frame may exceed it).
constexpr int64_t max_window_bytes = int64_t{128} << 20;

int pad_of(int kernel) { return kernel / 2; }

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

// A view of frames [first, first + n) of a packed volume [C, W, H, F].
ggml_tensor* frames(Graph& g, ggml_tensor* x, int64_t first, int64_t n) {
    return ggml_view_4d(g.ctx(), x, x->ne[0], x->ne[1], x->ne[2], n, x->nb[1], x->nb[2], x->nb[3],
                        static_cast<size_t>(first) * x->nb[3]);
}

ggml_tensor* pad_time(Graph& g, ggml_tensor* x, int before, int after) {
    ggml_tensor* first = frames(g, x, 0, 1);
    ggml_tensor* last = frames(g, x, x->ne[3] - 1, 1);
    for (int i = 0; i < before; ++i) x = ggml_concat(g.ctx(), first, x, 3);
    for (int i = 0; i < after; ++i) x = ggml_concat(g.ctx(), x, last, 3);
    return x;
}

// Frames of output whose gathered windows stay within the bound.
int64_t frames_per_piece(const Conv3d& c, int64_t width, int64_t height, int64_t depth) {
    const int64_t padded_width = width + 2 * pad_of(c.kernel[2]);
    const int64_t bytes = c.w->ne[0] * height * padded_width * static_cast<int64_t>(ggml_type_size(c.w->type));
    return std::clamp<int64_t>(max_window_bytes / bytes, 1, depth);
}

}  // namespace

Linear declare_linear(Weights& weights, const std::string& name, int64_t in, int64_t out, bool bias) {
    return {weights.matrix(name + ".weight", {out, in}), bias ? weights.vector(name + ".bias", {out}) : nullptr};
}

ggml_tensor* linear(Graph& g, const Linear& l, ggml_tensor* x) {
    ggml_tensor* y = ggml_mul_mat(g.ctx(), l.w, x);
    ggml_mul_mat_set_prec(y, GGML_PREC_F32);
    return l.b ? ggml_add(g.ctx(), y, l.b) : y;
}

ggml_tensor* rms_norm(Graph& g, ggml_tensor* x, ggml_tensor* w, float eps) {
    ggml_tensor* y = ggml_rms_norm(g.ctx(), x, eps);
    return w ? ggml_mul(g.ctx(), y, w) : y;
}

ggml_tensor* modulate(Graph& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift) {
    return ggml_add(g.ctx(), ggml_mul(g.ctx(), x, scale1), shift);
}

ggml_tensor* gelu_tanh(Graph& g, ggml_tensor* x) {
    if (!g.backend().exact()) return ggml_gelu(g.ctx(), x);
    // 0.5 (1 + tanh u) = sigmoid(2u)
    constexpr float c = 1.5957691216057308f;  // 2 sqrt(2/pi)
    ggml_tensor* factor = ggml_scale_bias(g.ctx(), ggml_sqr(g.ctx(), x), c * 0.044715f, c);
    return ggml_mul(g.ctx(), x, ggml_sigmoid(g.ctx(), ggml_mul(g.ctx(), x, factor)));
}

ggml_tensor* attention(Graph& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_context* ctx = g.ctx();
    const int64_t head_dim = q->ne[0], heads = q->ne[1], tokens = q->ne[2];
    q = ggml_permute(ctx, q, 0, 2, 1, 3);
    k = ggml_permute(ctx, k, 0, 2, 1, 3);
    v = ggml_permute(ctx, v, 0, 2, 1, 3);
    // For a single query ggml's CPU kernel splits the keys by thread, which would make the sum depend on the thread
    // count.
    if (tokens == 1) {
        ggml_tensor* scores = ggml_mul_mat(ctx, k, q);
        ggml_mul_mat_set_prec(scores, GGML_PREC_F32);
        scores = ggml_soft_max_ext(ctx, scores, mask, scale, 0.0f);
        ggml_tensor* values = ggml_cont(ctx, ggml_transpose(ctx, v));
        ggml_tensor* out = ggml_mul_mat(ctx, values, scores);
        return ggml_reshape_3d(ctx, ggml_cont(ctx, ggml_permute(ctx, out, 0, 2, 1, 3)), head_dim, heads, tokens);
    }
    if (!g.backend().exact()) {
        k = ggml_cast(ctx, k, GGML_TYPE_F16);
        v = ggml_cast(ctx, v, GGML_TYPE_F16);
    }
    ggml_tensor* out = ggml_flash_attn_ext(ctx, q, k, v, mask, scale, 0.0f, 0.0f);
    ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return ggml_reshape_3d(ctx, out, head_dim, heads, tokens);
}

ggml_tensor* rotate_half(Graph& g, ggml_tensor* x, ggml_tensor* cos, ggml_tensor* sin) {
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
ggml_tensor* window_view(Graph& g, ggml_tensor* x, int64_t kw, int64_t pixels, int64_t frames, size_t at) {
    ggml_tensor* v = ggml_view_1d(g.ctx(), x, 1, at);
    const int64_t ne[3] = {kw * x->ne[0], pixels, frames};
    const size_t nb[3] = {x->nb[1], x->nb[3], x->nb[3] * static_cast<size_t>(frames)};
    for (int d = 0; d < 3; ++d) {
        v->ne[d] = ne[d];
        v->nb[d + 1] = nb[d];
    }
    return v;
}

Conv3d declare_conv3d(Weights& weights, const std::string& name, int64_t in, int64_t out, std::array<int, 3> kernel,
                      const std::vector<int64_t>& out_order, bool exact, bool bias) {
    const int64_t kt = kernel[0], kh = kernel[1], kw = kernel[2];
    ggml_type type = weights.stored_type(name + ".weight");
    if (exact || weights.exact()) type = GGML_TYPE_F32;
    if (type != GGML_TYPE_F32 && type != GGML_TYPE_F16) type = type == GGML_TYPE_BF16 ? GGML_TYPE_BF16 : GGML_TYPE_F16;
    auto source = [out_order](int64_t o) { return out_order.empty() ? o : out_order[static_cast<size_t>(o)]; };
    Conv3d c;
    c.kernel = kernel;
    // stored (out, in, kt, kh, kw) -> (kt, kh, out, kw, in)
    c.w = weights.laid_out(name + ".weight", {out, in, kt, kh, kw}, type, {kw * in, out, kh, kt},
                           [=](const float* stored, float* laid) {
                               for (int64_t o = 0; o < out; ++o) {
                                   const float* row = stored + source(o) * in * kt * kh * kw;
                                   for (int64_t i = 0; i < in; ++i)
                                       for (int64_t th = 0; th < kt * kh; ++th)
                                           for (int64_t w = 0; w < kw; ++w)
                                               laid[((th * out + o) * kw + w) * in + i] = *row++;
                               }
                           });
    if (!bias) return c;
    c.b = weights.laid_out(name + ".bias", {out}, GGML_TYPE_F32, {out}, [=](const float* stored, float* laid) {
        for (int64_t o = 0; o < out; ++o) laid[o] = stored[source(o)];
    });
    return c;
}

size_t conv3d_nodes(const Conv3d& c, int64_t width, int64_t height, int64_t depth) {
    const int64_t step = frames_per_piece(c, width, height, depth);
    const int64_t pieces = (depth + step - 1) / step;
    // Per tap row: two views, the gathered window, its views, the product and the sum.
    return static_cast<size_t>(pieces * (c.kernel[0] * c.kernel[1] * 6 + 4) + 16);
}

ggml_tensor* conv3d(Graph& g, const Conv3d& c, ggml_tensor* x, TimePadding time) {
    ggml_context* ctx = g.ctx();
    const int kt = c.kernel[0], kh = c.kernel[1], kw = c.kernel[2];
    const int64_t channels = x->ne[0], width = x->ne[1], height = x->ne[2], depth = x->ne[3], out = c.w->ne[1];
    if (kt > 1 && time == TimePadding::causal_zeros) x = ggml_pad_ext(ctx, x, 0, 0, 0, 0, 0, 0, kt - 1, 0);
    if (kt > 1 && time == TimePadding::causal) x = pad_time(g, x, kt - 1, 0);
    if (kt > 1 && time == TimePadding::replicate) x = pad_time(g, x, (kt - 1) / 2, (kt - 1) / 2);
    if (kh > 1 || kw > 1) x = ggml_pad_ext(ctx, x, 0, 0, pad_of(kw), pad_of(kw), pad_of(kh), pad_of(kh), 0, 0);
    if (g.backend().is_cpu() && c.w->type != GGML_TYPE_F32) x = ggml_cast(ctx, x, c.w->type);

    const int64_t row = x->ne[1];                       // padded width
    const int64_t pixels = (height - 1) * row + width;  // of one frame, the padding between rows included
    const int64_t step = frames_per_piece(c, width, height, depth);
    ggml_tensor* y = step < depth ? ggml_new_tensor_4d(ctx, GGML_TYPE_F32, out, width, height, depth) : nullptr;
    for (int64_t first = 0; first < depth; first += step) {
        const int64_t n = std::min(step, depth - first);
        ggml_tensor* sum = nullptr;
        for (int64_t t = 0; t < kt; ++t)
            for (int64_t h = 0; h < kh; ++h) {
                ggml_tensor* w =
                    ggml_view_2d(ctx, c.w, kw * channels, out, c.w->nb[1], offset(c.w, 3, t) + offset(c.w, 2, h));
                ggml_tensor* window =
                    ggml_cont(ctx, window_view(g, x, kw, pixels, n, offset(x, 3, first + t) + offset(x, 2, h)));
                ggml_tensor* part = ggml_mul_mat(ctx, w, window);
                ggml_mul_mat_set_prec(part, GGML_PREC_F32);
                sum = sum ? ggml_add_inplace(ctx, sum, part) : part;
            }
        // Adding the bias also drops the padding between rows.
        ggml_tensor* rows = ggml_view_4d(ctx, sum, out, width, height, n, sum->nb[1],
                                         static_cast<size_t>(row) * sum->nb[1], sum->nb[2], 0);
        ggml_tensor* piece = c.b ? ggml_add(ctx, rows, c.b) : ggml_cont(ctx, rows);
        y = y ? ggml_set_inplace(ctx, y, piece, y->nb[1], y->nb[2], y->nb[3], offset(y, 3, first)) : piece;
    }
    return y;
}

ggml_tensor* depth_to_space(Graph& g, ggml_tensor* x, std::array<int, 3> stride) {
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
