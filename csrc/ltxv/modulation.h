// Adaptive layer norm of LTX-2 (transformer.md sections 3 and 6; ltx-core AdaLayerNormSingle): rows of scale, shift and
// gate that depend on the timestep. D = width of a stream, K = distinct timesteps of its tokens.
#pragma once

#include <string>
#include <vector>

#include "ggml/ops.h"

namespace sdltx {

constexpr int64_t sinusoid_size = 256;

// The distinct values of `timesteps` in order of appearance, and which of them each token has. Few tokens differ (a
// token is conditioned or not), so everything about timesteps is computed once per value.
std::vector<float> distinct_values(const std::vector<float>& timesteps, std::vector<int32_t>* index = nullptr);

// cos then sin of t * 1e4^(-k/128) (ltx-core get_timestep_embedding): (values, 256).
std::vector<float> sinusoid(const std::vector<float>& values, double scale);

struct AdaLayerNormSingle {
    std::string name;
    Linear linear_1, linear_2, linear;
};
AdaLayerNormSingle declare_adaln(Weights& weights, const std::string& name, int64_t dim, int64_t rows);
// sinusoid [256, K] -> [D, K]
ggml_tensor* embed_timesteps(Plan& g, const AdaLayerNormSingle& a, ggml_tensor* sinusoid);
// embedded [D, K] -> [rows D, K]
ggml_tensor* modulation_rows(Plan& g, const AdaLayerNormSingle& a, ggml_tensor* embedded);

// A block's rows: its table plus what the adaln gives for the timesteps.
class Modulation {
 public:
    // Rows [first, first + count) of `table` [D, ...]; adaln [count D, K]; index [T] says which of the K each token
    // has, null when all share one.
    Modulation(Plan& g, ggml_tensor* table, int64_t first, int64_t count, ggml_tensor* adaln, ggml_tensor* index);

    // Row i, or 1 + row i: [D, 1], or [D, T] with an index.
    ggml_tensor* row(Plan& g, int64_t i) const { return pick(g, rows_, i); }
    ggml_tensor* one_plus(Plan& g, int64_t i) const { return pick(g, one_plus_rows_, i); }

 private:
    ggml_tensor* pick(Plan& g, ggml_tensor* rows, int64_t i) const;

    ggml_tensor* rows_;  // [D, count, K]
    ggml_tensor* one_plus_rows_;
    ggml_tensor* index_;
};

// x (1 + scale) + shift with rows of `m`; x [D, T].
ggml_tensor* modulate(Plan& g, ggml_tensor* x, const Modulation& m, int64_t scale, int64_t shift);

}  // namespace sdltx
