// Building blocks of the graphs. Shapes in ggml order (fastest axis first); T = tokens.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "plan.h"
#include "weights.h"

namespace sdltx {

// x * rsqrt(mean(x^2) + eps) * w over the fastest axis; w [n] or null.
ggml_tensor* rms_norm(Plan& g, ggml_tensor* x, ggml_tensor* w, float eps);

// Rows [first, first + count) of a matrix, and which column of scale and shift is theirs; alone they are all rows,
// whatever the count.
struct RowRun {
    int64_t first, count, value;
    bool operator==(const RowRun& o) const { return first == o.first && count == o.count && value == o.value; }
};
using RowRuns = std::vector<RowRun>;
// x * scale1 + shift, scale1 holding 1 + scale: x [D, T], scale1 and shift [D, K]. Each run of rows gets the column of
// its value, which is never spread out over rows. With several runs the result takes the place of x.
ggml_tensor* modulate(Plan& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift, const RowRuns& runs);
// The same of rms_norm(x), in one pass where the device can; x stays.
ggml_tensor* modulated_norm(Plan& g, ggml_tensor* x, ggml_tensor* scale1, ggml_tensor* shift, const RowRuns& runs,
                            float eps);
// x + y gate likewise; y [D, T] is used up.
ggml_tensor* gated_sum(Plan& g, ggml_tensor* x, ggml_tensor* y, ggml_tensor* gate, const RowRuns& runs);
// rotate_half(rms_norm(x, w)): x [n head_dim, H / n, T], w [n head_dim] over n heads together -> [head_dim, H, T]. Null
// cos: not rotated.
ggml_tensor* normed_heads(Plan& g, ggml_tensor* x, ggml_tensor* w, int64_t head_dim, ggml_tensor* cos, ggml_tensor* sin,
                          float eps);
// Whether a plan computes with kernels of ours.
bool can_fuse(const Plan& g);

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
ggml_tensor* gelu_tanh(Plan& g, ggml_tensor* x);

// Rotates the pairs (j, j + head_dim/2) of x [head_dim, H, T] by angles given as cos and sin [head_dim/2, H or 1, T].
ggml_tensor* rotate_half(Plan& g, ggml_tensor* x, ggml_tensor* cos, ggml_tensor* sin);

// `row` [C] at every place of a new volume [C, W, H, F]; null = zeros.
ggml_tensor* filled(Plan& g, ggml_tensor* row, int64_t channels, int64_t width, int64_t height, int64_t depth);

// [C, W, H, F] -> [C, before + W + after, H, F], zeros beside each row.
ggml_tensor* pad_width(Plan& g, ggml_tensor* x, int64_t before, int64_t after);

// [C*s1*s2*s3, W, H, F] -> [C, W*s3, H*s2, F*s1]; channel ((p1*s2 + p2)*s3 + p3)*C + c goes to offset (p1, p2, p3) in
// (time, height, width).
ggml_tensor* depth_to_space(Plan& g, ggml_tensor* x, std::array<int, 3> stride);

}  // namespace sdltx
