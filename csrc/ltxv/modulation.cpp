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

Modulation::Modulation(Plan& g, ggml_tensor* table, int64_t first, int64_t count, ggml_tensor* adaln,
                       ggml_tensor* index)
    : index_(index) {
    ggml_context* ctx = g.ctx();
    const int64_t dim = table->ne[0];
    ggml_tensor* part = ggml_view_2d(ctx, table, dim, count, table->nb[1], static_cast<size_t>(first) * table->nb[1]);
    rows_ = ggml_add(ctx, ggml_reshape_3d(ctx, adaln, dim, count, adaln->ne[1]), part);
    one_plus_rows_ = ggml_scale_bias(ctx, rows_, 1.0f, 1.0f);
}

ggml_tensor* Modulation::pick(Plan& g, ggml_tensor* rows, int64_t i) const {
    ggml_tensor* row =
        ggml_view_2d(g.ctx(), rows, rows->ne[0], rows->ne[2], rows->nb[2], static_cast<size_t>(i) * rows->nb[1]);
    return index_ ? ggml_get_rows(g.ctx(), row, index_) : row;
}

ggml_tensor* modulate(Plan& g, ggml_tensor* x, const Modulation& m, int64_t scale, int64_t shift) {
    return modulate(g, x, m.one_plus(g, scale), m.row(g, shift));
}

}  // namespace sdltx
