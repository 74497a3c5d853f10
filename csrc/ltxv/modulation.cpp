#include "modulation.h"

#include <algorithm>
#include <cmath>

namespace sdltx {

std::vector<float> distinct_values(const std::vector<float>& timesteps, std::vector<int32_t>* index) {
    std::vector<float> values;
    for (float t : timesteps) {
        auto it = std::find(values.begin(), values.end(), t);
        if (index) index->push_back(static_cast<int32_t>(it - values.begin()));
        if (it == values.end()) values.push_back(t);
    }
    return values;
}

std::vector<float> sinusoid(const std::vector<float>& values, double scale) {
    std::vector<float> out;
    for (float v : values) {
        const float t = v * static_cast<float>(scale);
        for (int part = 0; part < 2; ++part)
            for (int64_t k = 0; k < sinusoid_size / 2; ++k) {
                const float f =
                    static_cast<float>(std::exp(-std::log(1e4) * static_cast<double>(k) / (sinusoid_size / 2)));
                const double angle = static_cast<double>(t * f);
                out.push_back(static_cast<float>(part ? std::sin(angle) : std::cos(angle)));
            }
    }
    return out;
}

AdaLayerNormSingle declare_adaln(Weights& weights, const std::string& name, int64_t dim, int64_t rows) {
    return {name, declare_linear(weights, name + ".emb.timestep_embedder.linear_1", sinusoid_size, dim),
            declare_linear(weights, name + ".emb.timestep_embedder.linear_2", dim, dim),
            declare_linear(weights, name + ".linear", dim, rows * dim)};
}

ggml_tensor* embed_timesteps(Plan& g, const AdaLayerNormSingle& a, ggml_tensor* sinusoid) {
    return g.stage(linear(g, a.linear_2, ggml_silu(g.ctx(), linear(g, a.linear_1, sinusoid))), a.name + ".emb");
}

ggml_tensor* modulation_rows(Plan& g, const AdaLayerNormSingle& a, ggml_tensor* embedded) {
    return g.stage(linear(g, a.linear, ggml_silu(g.ctx(), embedded)), a.name);
}

TokenRuns token_runs(const std::vector<int32_t>& index) {
    TokenRuns runs;
    for (size_t i = 0; i < index.size(); ++i) {
        if (runs.empty() || runs.back().value != index[i]) runs.push_back({static_cast<int64_t>(i), 0, index[i]});
        ++runs.back().count;
    }
    return runs;
}

ggml_tensor* add_to_tokens(Plan& g, ggml_tensor* x, ggml_tensor* row, const TokenRuns& runs) {
    for (const TokenRun& run : runs) {
        ggml_tensor* tokens =
            ggml_view_2d(g.ctx(), x, x->ne[0], run.count, x->nb[1], static_cast<size_t>(run.first) * x->nb[1]);
        x = g.after(x, ggml_add_inplace(g.ctx(), tokens, row));
    }
    return x;
}

Modulation::Modulation(Plan& g, ggml_tensor* table, int64_t first, int64_t count, ggml_tensor* adaln,
                       const TokenRuns& runs)
    : runs_(runs) {
    ggml_context* ctx = g.ctx();
    const int64_t dim = table->ne[0];
    table = g.adjusted(table);
    ggml_tensor* part = ggml_view_2d(ctx, table, dim, count, table->nb[1], static_cast<size_t>(first) * table->nb[1]);
    rows_ = adaln ? ggml_add(ctx, ggml_reshape_3d(ctx, adaln, dim, count, adaln->ne[1]), part)
                  : ggml_reshape_3d(ctx, ggml_cont(ctx, part), dim, count, 1);
    one_plus_rows_ = ggml_scale_bias(ctx, rows_, 1.0f, 1.0f);
}

ggml_tensor* Modulation::row(Plan& g, ggml_tensor* rows, int64_t i) const {
    return ggml_view_2d(g.ctx(), rows, rows->ne[0], rows->ne[2], rows->nb[2], static_cast<size_t>(i) * rows->nb[1]);
}

ggml_tensor* Modulation::modulate(Plan& g, ggml_tensor* x, int64_t scale, int64_t shift) const {
    return sdltx::modulate(g, x, row(g, one_plus_rows_, scale), row(g, rows_, shift), runs_);
}

ggml_tensor* Modulation::modulate_normed(Plan& g, ggml_tensor* x, int64_t scale, int64_t shift, float eps) const {
    return modulated_norm(g, x, row(g, one_plus_rows_, scale), row(g, rows_, shift), runs_, eps);
}

ggml_tensor* Modulation::add_gated(Plan& g, ggml_tensor* x, ggml_tensor* y, int64_t gate) const {
    return gated_sum(g, x, y, row(g, rows_, gate), runs_);
}

}  // namespace sdltx
