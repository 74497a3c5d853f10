#include "ops.h"

namespace sdltx {

namespace {

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

}  // namespace

ggml_tensor* filled(Plan& g, ggml_tensor* row, int64_t channels, int64_t width, int64_t height, int64_t depth) {
    if (!row) row = g.zeros(channels);
    return ggml_repeat_4d(g.ctx(), row, channels, width, height, depth);
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

ggml_tensor* pad_width(Plan& g, ggml_tensor* x, int64_t before, int64_t after) {
    if (before == 0 && after == 0) return x;
    ggml_tensor* y = filled(g, nullptr, x->ne[0], before + x->ne[1] + after, x->ne[2], x->ne[3]);
    ggml_tensor* inside = ggml_view_4d(g.ctx(), y, x->ne[0], x->ne[1], x->ne[2], x->ne[3], y->nb[1], y->nb[2], y->nb[3],
                                       offset(y, 1, before));
    return g.after(y, ggml_cpy(g.ctx(), x, inside));
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
