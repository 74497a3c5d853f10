// Products with weights. Shapes in ggml order (fastest axis first); T = tokens.
#pragma once

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
};
Linear declare_linear(Weights& weights, const std::string& name, int64_t in, int64_t out, bool bias = true);
ggml_tensor* linear(Plan& g, const Linear& l, ggml_tensor* x, Activation activation = Activation::none);
// The same without the bias.
ggml_tensor* product(Plan& g, const Linear& l, ggml_tensor* x);

// Multiply-adds of one of `tokens` rows, as Backend::patience() counts them: less where they are done faster.
int64_t work_of(const Plan& g, const Linear& l, int64_t tokens);

}  // namespace sdltx
