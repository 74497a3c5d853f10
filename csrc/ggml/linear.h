// Products with weights. Shapes in ggml order (fastest axis first); T = tokens.
#pragma once

#include <array>
#include <string>

#include "plan.h"
#include "weights.h"

namespace sdltx {

// w x with sums in float32, whatever the type of w. w [K, M], x [K, N, ...] -> [M, N, ...]
ggml_tensor* product(Plan& g, ggml_tensor* w, ggml_tensor* x);

// x [in, T] -> [out, T]; w [in, out], b [out] or null. scale, if not null, goes to the results before the bias.
struct Linear {
    ggml_tensor* w = nullptr;
    ggml_tensor* b = nullptr;
    ggml_tensor* scale = nullptr;  // [1] or [out]
    // What w is as it lies in its file, if no type of ggml's tells; scale is left out of it.
    const TensorInfo* stored = nullptr;
    // Whether x may have values that half precision does not hold, as between the two layers of a feed-forward.
    bool wide_range = false;
};
Linear declare_linear(Weights& weights, const std::string& name, int64_t in, int64_t out, bool bias = true);
ggml_tensor* linear(Plan& g, const Linear& l, ggml_tensor* x, Activation activation = Activation::none);
// Whether x is brought to a common size first, so that a device which multiplies halves can; that takes memory as x
// does.
bool evens_out(const Plan& g, const Linear& l);
// The same without the bias.
ggml_tensor* product(Plan& g, const Linear& l, ggml_tensor* x);

// --- what products by our own kernel share ---

// Whether it multiplies w with so many rows of floats, which need not lie beside each other.
bool has_own_product(const Plan& g, const ggml_tensor* w, int64_t rows);
// How much faster it is than the kernels that patience was measured with.
constexpr int64_t own_speedup = 8;
// The matrices of w [K, M, ...] for the kernel, where its data are.
WeightRows weight_rows(const ggml_tensor* w, const TensorInfo* stored = nullptr);
// Rows [first, first + count) of a matrix, which may overlap.
ggml_tensor* rows_of(Plan& g, ggml_tensor* x, int64_t first, int64_t count);
// A new tensor of any values.
ggml_tensor* uninitialised(Plan& g, ggml_type type, std::array<int64_t, 4> ne);

// Multiply-adds of one of `tokens` rows, as Backend::patience() counts them: less where they are done faster.
int64_t work_of(const Plan& g, const Linear& l, int64_t tokens);

}  // namespace sdltx
