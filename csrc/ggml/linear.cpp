#include "linear.h"

#include <algorithm>

#include "cpu_kernels.h"
#include "encodings.h"
#include "ops.h"
#include "pieces.h"

namespace sdltx {

namespace {

// The fewest rows for which unpacking the weights of a product pays.
constexpr int64_t least_rows = 32;

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

WeightType weight_type(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32:
            return WeightType::f32;
        case GGML_TYPE_F16:
            return WeightType::f16;
        case GGML_TYPE_BF16:
            return WeightType::bf16;
        case fp8_type:
            return WeightType::e4m3;
        case GGML_TYPE_Q8_0:
            return WeightType::q8_0;
        case GGML_TYPE_Q4_0:
            return WeightType::q4_0;
        case GGML_TYPE_Q5_0:
            return WeightType::q5_0;
        case GGML_TYPE_Q6_K:
            return WeightType::q6_k;
        default:
            return WeightType::other;
    }
}

}  // namespace

WeightRows weight_rows(const ggml_tensor* w, const TensorInfo* stored) {
    WeightRows rows{};
    rows.type = weight_type(w->type);
    rows.data = w->data;
    rows.stride = static_cast<int64_t>(w->nb[1]);
    rows.block = ggml_blck_size(w->type);
    rows.block_bytes = static_cast<int64_t>(ggml_type_size(w->type));
    rows.rows = w->ne[1];
    rows.matrices = w->ne[2] * w->ne[3];
    rows.matrix_stride = static_cast<int64_t>(w->nb[2]);
    rows.widen = ggml_get_type_traits(w->type)->to_float;
    if (stored && stored->dtype == "F8_E5M2") rows.type = WeightType::e5m2;
    if (stored && stored->block_scale) {
        rows.powers = stored->block_scale->data;
        rows.block = rows.block_bytes = mxfp8_block;
    }
    return rows;
}

ggml_tensor* rows_of(Plan& g, ggml_tensor* x, int64_t first, int64_t count) {
    // ggml would take rows that overlap, such as windows, for longer than what they lie in.
    ggml_tensor* v = ggml_view_2d(g.ctx(), x, x->ne[0], 1, x->nb[1], offset(x, 1, first));
    v->ne[1] = count;
    v->nb[2] = v->nb[3] = x->nb[1] * static_cast<size_t>(count);
    return v;
}

ggml_tensor* uninitialised(Plan& g, ggml_type type, std::array<int64_t, 4> ne) {
    return g.computed(type, ne, {}, [](ggml_tensor*, Share) {});
}

// Where it is better than ggml's.
bool has_own_product(const Plan& g, const ggml_tensor* w, int64_t rows) {
    if (!g.backend().uses_host_memory() || !ggml_is_matrix(w) || w->nb[0] != ggml_type_size(w->type)) return false;
    if (w->type == fp8_type) return true;  // ggml has no product of it
    return rows >= least_rows && (w->type == GGML_TYPE_F32 || ggml_get_type_traits(w->type)->to_float);
}

namespace {

bool is_own(const Plan& g, const ggml_tensor* w, const ggml_tensor* x) {
    return has_own_product(g, w, x->ne[1]) && ggml_is_matrix(x) && x->type == GGML_TYPE_F32 &&
           x->nb[0] == sizeof(float);
}

// Rows as the kernel takes them, made once for all products of the same ones.
ggml_tensor* packed(Plan& g, const Kernels& kernels, ggml_tensor* x) {
    ggml_tensor*& made = g.made_of(x);
    if (made) return made;
    const int64_t columns = x->ne[0], rows = x->ne[1], units = kernels.packed_units(columns);
    made = g.computed(GGML_TYPE_I32, {units, rows, 1, 1}, {x}, [=, &kernels](ggml_tensor* dst, Share share) {
        const ggml_tensor* from = dst->src[0];
        kernels.pack_rows(static_cast<const float*>(from->data), static_cast<int64_t>(from->nb[1] / sizeof(float)),
                          columns, rows, dst->data, share);
    });
    return made;
}

// What follows the sums of a product.
struct Ending {
    bool with_bias = false;
    Activation activation = Activation::none;
    ggml_tensor* residual = nullptr;  // [out, T]: added before the activation
};

ggml_tensor* own_product(Plan& g, const Linear& l, ggml_tensor* x, const Ending& ending) {
    const Kernels& kernels = *cpu_kernels().own();
    const bool exact = g.backend().exact() || l.w->type == GGML_TYPE_F32 || !kernels.fast;
    const int64_t columns = l.w->ne[0], outputs = l.w->ne[1], tokens = x->ne[1];
    ggml_tensor* rows = exact ? x : packed(g, kernels, x);
    const auto bytes = static_cast<int64_t>(kernels.product_scratch(columns, 1, g.backend().threads(), exact));
    ggml_tensor *scratch = uninitialised(g, GGML_TYPE_I8, {bytes, 1, 1, 1}),
                *bias = ending.with_bias ? g.adjusted(l.b) : nullptr;
    // `sources`: w, rows, scratch, then scale, bias and residual if there are any.
    const bool scaled = l.scale, biased = bias, residual = ending.residual;
    const Activation activation = ending.activation;
    const TensorInfo* stored = l.stored;
    const auto compute = [=, &kernels](ggml_tensor* dst, ggml_tensor* const* sources, Share share) {
        const auto floats = [](const ggml_tensor* t) { return static_cast<const float*>(t->data); };
        const auto stride = [](const ggml_tensor* t) { return static_cast<int64_t>(t->nb[1] / sizeof(float)); };
        ProductJob job{};
        static constexpr int64_t start = 0;
        job.w = weight_rows(sources[0], stored);
        job.columns = columns;
        job.rows = sources[1]->ne[1];
        job.x = {sources[1]->data, job.rows, 1, stride(sources[1]), 0, 0, &start};
        job.y = static_cast<float*>(dst->data);
        job.y_stride = stride(dst);
        ggml_tensor* const* more = sources + 3;
        if (scaled) {
            job.one_scale = ggml_nelements(*more) == 1;
            job.scale = floats(*more++);
        }
        if (biased) job.bias = floats(*more++);
        if (residual) job.residual = floats(*more);
        job.activation = activation;
        job.scratch = sources[2]->data;
        job.exact = exact;
        kernels.product(job, share);
    };
    const auto sources = [&](ggml_tensor* some, ggml_tensor* added) {
        std::vector<ggml_tensor*> all{l.w, some, scratch};
        if (scaled) all.push_back(l.scale);
        if (biased) all.push_back(bias);
        if (residual) all.push_back(added);
        return all;
    };
    const std::vector<RowPiece> pieces = cut_rows(g, tokens, work_of(g, l, tokens));
    if (pieces.size() == 1)
        return g.computed(GGML_TYPE_F32, {outputs, tokens, 1, 1}, sources(rows, ending.residual),
                          [=](ggml_tensor* dst, Share share) { compute(dst, dst->src, share); });
    ggml_tensor* y = uninitialised(g, GGML_TYPE_F32, {outputs, tokens, 1, 1});
    for (const RowPiece& p : pieces) {
        const auto some = [&](ggml_tensor* t) { return rows_of(g, t, p.first, p.count); };
        y = g.after(y, g.computed_in(some(y), sources(some(rows), residual ? some(ending.residual) : nullptr),
                                     [=](ggml_tensor* dst, Share share) { compute(dst, dst->src + 1, share); }));
        g.compute_next(y);
    }
    return y;
}

ggml_tensor* whole_product(Plan& g, ggml_tensor* w, ggml_tensor* x) {
    ggml_tensor* y = ggml_mul_mat(g.ctx(), w, x);
    // For half precision it says where sums are kept. For other types some devices would widen the weights first.
    if (w->type == GGML_TYPE_F16 || g.backend().multiplies_halves()) ggml_mul_mat_set_prec(y, GGML_PREC_F32);
    return y;
}

ggml_tensor* activated(Plan& g, ggml_tensor* y, Activation activation) {
    return activation == Activation::none ? y : gelu_tanh(g, y);
}

// Adds to y what is added to the matrix gives.
ggml_tensor* with_deltas(Plan& g, const Linear& l, ggml_tensor* x, ggml_tensor* y, Activation activation) {
    const std::vector<Delta>& deltas = g.deltas(l.w);
    for (const Delta& d : deltas) {
        ggml_tensor* inner = d.whole ? x : product(g, Linear{d.a}, x);  // [rank, T], or [in, T]
        if (d.scale != 1)
            inner = ggml_scale(g.ctx(), ggml_is_contiguous(inner) ? inner : ggml_cont(g.ctx(), inner), d.scale);
        const Linear last{d.whole ? d.whole : d.b};
        if (is_own(g, last.w, inner)) {
            const bool is_last = &d == &deltas.back();
            y = own_product(g, last, inner, {false, is_last ? activation : Activation::none, y});
            if (is_last) return y;
        } else {
            y = ggml_add(g.ctx(), y, product(g, last, inner));
        }
    }
    return activated(g, y, activation);
}

}  // namespace

// w x by way of rows of mean square 1, none of whose values is beyond the root of their number. (A fixed factor would
// not do: halves are as short of small values as of large ones.)
ggml_tensor* even_product(Plan& g, ggml_tensor* w, ggml_tensor* x) {
    constexpr float eps = 1e-20f;  // rows of zeros stay
    ggml_context* ctx = g.ctx();
    if (!ggml_is_contiguous(x)) x = ggml_cont(ctx, x);
    const auto count = static_cast<float>(x->ne[0]);
    ggml_tensor* squares = ggml_sum_rows(ctx, ggml_sqr(ctx, x));                            // [1, T]
    ggml_tensor* sizes = ggml_sqrt(ctx, ggml_scale_bias(ctx, squares, 1.0f / count, eps));  // [1, T]
    return ggml_mul(ctx, product(g, w, rms_norm(g, x, nullptr, eps)), sizes);
}

// What few rows do not make short enough, such as the projection of all of Gemma's layers, is cut by its results.
ggml_tensor* product(Plan& g, ggml_tensor* w, ggml_tensor* x) {
    if (!ggml_is_matrix(w) || !ggml_is_matrix(x)) return whole_product(g, w, x);
    const std::vector<RowPiece> pieces = cut_rows(g, w->ne[1], w->ne[0] * x->ne[1]);
    if (pieces.size() == 1) return whole_product(g, w, x);
    ggml_tensor* y = filled(g, nullptr, w->ne[1], x->ne[1], 1, 1);
    for (const RowPiece& p : pieces) {
        ggml_tensor* some = ggml_view_2d(g.ctx(), w, w->ne[0], p.count, w->nb[1], offset(w, 1, p.first));
        ggml_tensor* to = ggml_view_2d(g.ctx(), y, p.count, x->ne[1], y->nb[1], offset(y, 0, p.first));
        y = g.after(y, ggml_cpy(g.ctx(), whole_product(g, some, x), to));
        g.compute_next(y);
    }
    return y;
}

Linear declare_linear(Weights& weights, const std::string& name, int64_t in, int64_t out, bool bias) {
    const ScaledMatrix m = weights.scaled_matrix(name + ".weight", {out, in});
    return {m.w, bias ? weights.vector(name + ".bias", {out}) : nullptr, m.scale, m.stored};
}

ggml_tensor* product(Plan& g, const Linear& l, ggml_tensor* x) {
    if (l.w->type == fp8_type && x->nb[0] != sizeof(float)) x = ggml_cont(g.ctx(), x);
    if (is_own(g, l.w, x)) return with_deltas(g, l, x, own_product(g, l, x, {}), Activation::none);
    // GPUs take x, or sums of it, as halves unless w is of a type with a wide range.
    ggml_tensor* y = evens_out(g, l) ? even_product(g, l.w, x) : product(g, l.w, x);
    return with_deltas(g, l, x, l.scale ? ggml_mul(g.ctx(), y, l.scale) : y, Activation::none);
}

ggml_tensor* linear(Plan& g, const Linear& l, ggml_tensor* x, Activation activation) {
    if (l.w->type == fp8_type && x->nb[0] != sizeof(float)) x = ggml_cont(g.ctx(), x);
    if (is_own(g, l.w, x)) {
        if (g.deltas(l.w).empty()) return own_product(g, l, x, {true, activation});
        return with_deltas(g, l, x, own_product(g, l, x, {true}), activation);
    }
    return by_rows(g, x, l.w->ne[1], ggml_nelements(l.w), [&](ggml_tensor* part) {
        ggml_tensor* y = product(g, l, part);
        return activated(g, l.b ? ggml_add(g.ctx(), y, g.adjusted(l.b)) : y, activation);
    });
}

bool evens_out(const Plan& g, const Linear& l) {
    return l.wide_range && !g.backend().uses_host_memory() && l.w->type != GGML_TYPE_BF16;
}

int64_t work_of(const Plan& g, const Linear& l, int64_t tokens) {
    return std::max<int64_t>(1, ggml_nelements(l.w) / (has_own_product(g, l.w, tokens) ? own_speedup : 1));
}

}  // namespace sdltx
