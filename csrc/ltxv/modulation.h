// Adaptive layer norm of LTX-2 (transformer.md sections 3 and 6; ltx-core AdaLayerNormSingle): rows of scale, shift and
// gate that depend on the timestep. D = width of a stream, K = distinct timesteps of its tokens.
#pragma once

#include <string>
#include <vector>

#include "ggml/linear.h"
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

// Tokens [first, first + count), which share a timestep: the one with number `value` of the distinct ones.
using TokenRun = RowRun;
using TokenRuns = RowRuns;
TokenRuns token_runs(const std::vector<int32_t>& index);

// x [D, T], to which `row` [D] is added for the tokens of these runs; x is used up.
ggml_tensor* add_to_tokens(Plan& g, ggml_tensor* x, ggml_tensor* row, const TokenRuns& runs);

// A block's rows: its table plus what the adaln gives for the timesteps.
class Modulation {
 public:
    // Rows [first, first + count) of `table` [D, ...]; adaln [count D, K], null: the table alone. The runs must outlive
    // it.
    Modulation(Plan& g, ggml_tensor* table, int64_t first, int64_t count, ggml_tensor* adaln, const TokenRuns& runs);

    // x (1 + scale) + shift with these rows, those of its timestep for each run of tokens; x [D, T], see modulate().
    ggml_tensor* modulate(Plan& g, ggml_tensor* x, int64_t scale, int64_t shift) const;
    // The same of rms_norm(x); x stays.
    ggml_tensor* modulate_normed(Plan& g, ggml_tensor* x, int64_t scale, int64_t shift, float eps) const;
    // x + y gate; y [D, T] is used up.
    ggml_tensor* add_gated(Plan& g, ggml_tensor* x, ggml_tensor* y, int64_t gate) const;

 private:
    ggml_tensor* row(Plan& g, ggml_tensor* rows, int64_t i) const;  // [D, K]

    ggml_tensor* rows_;  // [D, count, K]
    ggml_tensor* one_plus_rows_;
    const TokenRuns& runs_;
};

}  // namespace sdltx
