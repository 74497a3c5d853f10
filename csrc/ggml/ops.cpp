#include "ops.h"

#include "cpu_kernels.h"

namespace sdltx {

namespace {

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

}  // namespace

ggml_tensor* filled(Plan& g, ggml_tensor* row, int64_t channels, int64_t width, int64_t height, int64_t depth) {
    if (!row) row = g.zeros(channels);
    return ggml_repeat_4d(g.ctx(), row, channels, width, height, depth);
}

namespace {

// The rows of a packed tensor along two axes of at most 65,535, as some GPUs take no more along any of them; along the
// first alone where that cannot be. Other tensors stay as they are.
ggml_tensor* as_rows(Plan& g, ggml_tensor* x) {
    constexpr int64_t most = 65535;
    const int64_t rows = ggml_nrows(x);
    if (!ggml_is_contiguous(x) || (ggml_is_matrix(x) && (rows <= most || g.backend().uses_host_memory()))) return x;
    int64_t first = std::min(rows, most);
    while (rows % first) --first;
    if (rows / first > most) first = rows;
    return ggml_reshape_3d(g.ctx(), x, x->ne[0], first, rows / first);
}

ggml_tensor* shaped_as(Plan& g, ggml_tensor* y, const ggml_tensor* x) {
    return ggml_are_same_shape(x, y) ? y : ggml_reshape_4d(g.ctx(), y, x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

// Devices compute a norm and what is done with it in one pass where nothing stands between them.
ggml_tensor* before(Plan& g, ggml_tensor* t) {
    if (t->op != GGML_OP_NONE && !g.backend().uses_host_memory()) g.compute_next(t);
    return t;
}

ggml_tensor* rows_of(Plan& g, ggml_tensor* x, const RowRun& run) {
    return ggml_view_2d(g.ctx(), x, x->ne[0], run.count, x->nb[1], offset(x, 1, run.first));
}

// The column of its value, [D, 1].
ggml_tensor* column_of(Plan& g, ggml_tensor* columns, const RowRun& run) {
    return before(g, ggml_view_2d(g.ctx(), columns, columns->ne[0], 1, columns->nb[1], offset(columns, 1, run.value)));
}

const float* floats(const ggml_tensor* t) { return static_cast<const float*>(t->data); }
int64_t stride(const ggml_tensor* t, int axis) { return static_cast<int64_t>(t->nb[axis] / sizeof(float)); }

}  // namespace

bool can_fuse(const Plan& g) { return g.backend().uses_host_memory(); }

ggml_tensor* rms_norm(Plan& g, ggml_tensor* x, ggml_tensor* w, float eps) {
    if (w) before(g, w);
    ggml_tensor* y = ggml_rms_norm(g.ctx(), as_rows(g, x), eps);
    if (w) y = ggml_mul(g.ctx(), y, w);
    return shaped_as(g, y, x);
}

ggml_tensor* modulate(Plan& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift, const RowRuns& runs) {
    ggml_context* ctx = g.ctx();
    if (runs.size() == 1)
        return ggml_add(ctx, ggml_mul(ctx, x, column_of(g, scale1, runs[0])), column_of(g, shift, runs[0]));
    for (const RowRun& run : runs) {
        ggml_tensor* part = ggml_mul_inplace(ctx, rows_of(g, x, run), column_of(g, scale1, run));
        x = g.after(x, ggml_add_inplace(ctx, part, column_of(g, shift, run)));
    }
    return x;
}

ggml_tensor* modulated_norm(Plan& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift, const RowRuns& runs,
                            float eps) {
    if (!can_fuse(g)) {
        if (runs.size() > 1) return modulate(g, rms_norm(g, x, nullptr, eps), scale1, shift, runs);
        return shaped_as(g, modulate(g, ggml_rms_norm(g.ctx(), as_rows(g, x), eps), scale1, shift, runs), x);
    }
    return g.computed(GGML_TYPE_F32, {x->ne[0], x->ne[1], 1, 1}, {x, scale1, shift},
                      [runs, eps](ggml_tensor* dst, Share share) {
                          const ggml_tensor *from = dst->src[0], *scales = dst->src[1], *shifts = dst->src[2];
                          for (const RowRun& run : runs) {
                              NormJob job{};
                              job.x = floats(from) + run.first * stride(from, 1);
                              job.x_stride = stride(from, 1);
                              job.width = dst->ne[0];
                              job.rows = runs.size() > 1 ? run.count : dst->ne[1];
                              job.eps = eps;
                              job.scale = floats(scales) + run.value * stride(scales, 1);
                              job.shift = floats(shifts) + run.value * stride(shifts, 1);
                              job.y = static_cast<float*>(dst->data) + run.first * dst->ne[0];
                              cpu_kernels().own()->norm(job, share);
                          }
                      });
}

ggml_tensor* gated_sum(Plan& g, ggml_tensor* x, ggml_tensor* y, ggml_tensor* gate, const RowRuns& runs) {
    ggml_context* ctx = g.ctx();
    if (!can_fuse(g) || !ggml_is_contiguous(x) || !ggml_is_contiguous(y)) {
        if (runs.size() == 1) return ggml_add(ctx, x, ggml_mul(ctx, y, column_of(g, gate, runs[0])));
        for (const RowRun& run : runs)
            y = g.after(y, ggml_mul_inplace(ctx, rows_of(g, y, run), column_of(g, gate, run)));
        return ggml_add(ctx, x, y);
    }
    return g.computed(GGML_TYPE_F32, {x->ne[0], x->ne[1], 1, 1}, {x, y, gate}, [runs](ggml_tensor* dst, Share share) {
        for (const RowRun& run : runs) {
            const int64_t at = run.first * dst->ne[0];
            cpu_kernels().own()->gate(
                {floats(dst->src[0]) + at, floats(dst->src[1]) + at,
                 floats(dst->src[2]) + run.value * stride(dst->src[2], 1), static_cast<float*>(dst->data) + at,
                 dst->ne[0], runs.size() > 1 ? run.count : dst->ne[1]},
                share);
        }
    });
}

ggml_tensor* normed_heads(Plan& g, ggml_tensor* x, ggml_tensor* w, int64_t head_dim, ggml_tensor* cos, ggml_tensor* sin,
                          float eps) {
    const int64_t tokens = x->ne[2], heads = x->ne[0] * x->ne[1] / head_dim;
    if (!can_fuse(g) || !ggml_is_contiguous(x)) {
        ggml_tensor* y = ggml_reshape_3d(g.ctx(), rms_norm(g, x, w, eps), head_dim, heads, tokens);
        return cos ? rotate_half(g, y, cos, sin) : y;
    }
    std::vector<ggml_tensor*> sources{x, w};
    if (cos) sources.insert(sources.end(), {cos, sin});
    const bool rotated = cos;
    return g.computed(GGML_TYPE_F32, {head_dim, heads, tokens, 1}, sources, [=](ggml_tensor* dst, Share share) {
        const ggml_tensor* from = dst->src[0];
        NormJob job{};
        job.x = floats(from);
        job.x_stride = job.width = from->ne[0];
        job.rows = from->ne[1] * from->ne[2];
        job.eps = eps;
        job.scale = floats(dst->src[1]);
        job.y = static_cast<float*>(dst->data);
        if (rotated) {
            const ggml_tensor* angles = dst->src[2];
            job.half = head_dim / 2;
            job.rows_of_token = from->ne[1];
            job.cos = floats(angles);
            job.sin = floats(dst->src[3]);
            job.angles_token = stride(angles, 2);
            job.angles_head = angles->ne[1] == 1 ? 0 : stride(angles, 1);
        }
        cpu_kernels().own()->norm(job, share);
    });
}

ggml_tensor* gelu_tanh(Plan& g, ggml_tensor* x) {
    // Not ggml's, which on CPUs is a table in half precision.
    if (can_fuse(g) && ggml_is_contiguous(x))
        return g.computed(GGML_TYPE_F32, {x->ne[0], x->ne[1], x->ne[2], x->ne[3]}, {x},
                          [](ggml_tensor* dst, Share share) {
                              cpu_kernels().own()->gelu_tanh(
                                  {floats(dst->src[0]), static_cast<float*>(dst->data), ggml_nelements(dst)}, share);
                          });
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
