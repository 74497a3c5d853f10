#include "attention.h"

#include <algorithm>

#include "cpu_kernels.h"
#include "linear.h"
#include "pieces.h"

namespace sdltx {

namespace {

size_t offset(const ggml_tensor* t, int axis, int64_t i) { return static_cast<size_t>(i) * t->nb[axis]; }

// [head_dim, H, T]
HeadRows rows_of(const ggml_tensor* t) {
    constexpr size_t f = sizeof(float);
    return {static_cast<const float*>(t->data), static_cast<int64_t>(t->nb[2] / f), static_cast<int64_t>(t->nb[1] / f)};
}

// What is added to scores: a mask or a bias, or neither.
struct Added {
    ggml_tensor* mask = nullptr;
    AttentionBias bias{};
};

// By our own kernel, whose tensors are floats with packed rows.
ggml_tensor* own_attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, const Added& added, float scale,
                           bool exact) {
    const AttentionShape shape{q->ne[0], q->ne[1], k->ne[1], k->ne[2]};
    const Kernels* kernels = cpu_kernels().own();
    const auto bytes = static_cast<int64_t>(kernels->packed_attention_bytes(shape, g.backend().threads(), exact));
    ggml_tensor* packed = g.computed(GGML_TYPE_I8, {bytes, 1, 1, 1}, {k, v}, [=](ggml_tensor* dst, Share share) {
        kernels->pack_attention(shape, rows_of(dst->src[0]), rows_of(dst->src[1]), dst->data, exact, share);
    });
    // `sources`: q, packed, and mask or rows, which, own.
    const bool biased = added.bias.rows != nullptr;
    const int64_t biased_keys = added.bias.count;
    const auto compute = [=](ggml_tensor* dst, ggml_tensor* const* sources, Share share) {
        const ggml_tensor *queries = sources[0], *m = biased ? nullptr : sources[2];
        const HeadRows to = rows_of(dst);
        AttentionJob job{};
        job.shape = shape;
        job.queries = queries->ne[2];
        job.q = rows_of(queries);
        job.packed = sources[1]->data;
        job.mask = m ? static_cast<const uint16_t*>(m->data) : nullptr;
        job.mask_stride = m ? static_cast<int64_t>(m->nb[1] / sizeof(uint16_t)) : 0;
        if (biased) {
            job.bias = static_cast<const float*>(sources[2]->data);
            job.bias_row = static_cast<const int32_t*>(sources[3]->data);
            job.query_bias = static_cast<const float*>(sources[4]->data);
            job.query_biased_keys = biased_keys;
        }
        job.scale = scale;
        job.out = static_cast<float*>(dst->data);
        job.out_token = to.token;
        job.out_head = to.head;
        job.exact = exact;
        kernels->attention(job, share);
    };
    // Those of queries [first, first + count).
    const auto sources = [&](ggml_tensor* queries, int64_t first, int64_t count) {
        std::vector<ggml_tensor*> all{queries, packed};
        ggml_context* ctx = g.ctx();
        if (ggml_tensor* m = added.mask)
            all.push_back(count == m->ne[1] ? m : ggml_view_2d(ctx, m, m->ne[0], count, m->nb[1], offset(m, 1, first)));
        if (biased) {
            all.push_back(added.bias.rows);
            for (ggml_tensor* t : {added.bias.which, added.bias.own})
                all.push_back(ggml_view_1d(ctx, t, count, offset(t, 0, first)));
        }
        return all;
    };
    constexpr int64_t faster = 4;  // than the kernels that patience was measured with
    const int64_t tokens = q->ne[2];
    const std::vector<RowPiece> pieces = cut_rows(g, tokens, 2 * shape.head_dim * shape.heads * shape.keys / faster);
    if (pieces.size() == 1)
        return g.computed(GGML_TYPE_F32, {q->ne[0], q->ne[1], tokens, 1}, sources(q, 0, tokens),
                          [=](ggml_tensor* dst, Share share) { compute(dst, dst->src, share); });
    ggml_tensor* y = filled(g, nullptr, q->ne[0], q->ne[1], tokens, 1);
    for (const RowPiece& p : pieces) {
        const auto some = [&](ggml_tensor* t) {
            return ggml_view_3d(g.ctx(), t, t->ne[0], t->ne[1], p.count, t->nb[1], t->nb[2], offset(t, 2, p.first));
        };
        y = g.after(y, g.computed_in(some(y), sources(some(q), p.first, p.count),
                                     [=](ggml_tensor* dst, Share share) { compute(dst, dst->src + 1, share); }));
        g.compute_next(y);
    }
    return y;
}

}  // namespace

namespace {

// q [head_dim, T, H], k [head_dim, S, Hkv], v as the kernel wants it -> [head_dim, H, T].
using Kernel = ggml_tensor* (*)(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                                float scale);

// v [head_dim, S, Hkv]
ggml_tensor* flash_kernel(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_tensor* out = ggml_flash_attn_ext(g.ctx(), q, k, v, mask, scale, 0.0f, 0.0f);  // [head_dim, H, T]
    ggml_flash_attn_ext_set_prec(out, GGML_PREC_F32);
    return out;
}

// v [S, head_dim, Hkv]
ggml_tensor* softmax_kernel(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_context* ctx = g.ctx();
    ggml_tensor* scores = ggml_soft_max_ext(ctx, product(g, k, q), mask, scale, 0.0f);  // [S, T, H]
    return ggml_cont(ctx, ggml_permute(ctx, product(g, v, scores), 0, 2, 1, 3));        // [head_dim, H, T]
}

// GPUs keep sums over keys that are halves as halves (65,504 at most), which are up to as many times the largest value
// as there are keys. The power of two that makes it 128 times: values up to 511 are safe whatever is looked at, and
// those of a thousandth are halves still that are not cut short.
float share_of_values(int64_t keys) {
    float share = 1;
    while (static_cast<float>(keys) * share > 128) share /= 2;
    return share;
}

// Runs a kernel for some queries, and if need be some heads, at a time -> [head_dim, H, T].
ggml_tensor* in_pieces(Plan& g, Kernel kernel, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                       float scale) {
    const int64_t head_dim = q->ne[0], tokens = q->ne[1], heads = q->ne[2], group = heads / k->ne[2];
    const int64_t work = 2 * head_dim * k->ne[1];                  // of a query and a head
    const int64_t fitting = g.backend().patience() / (64 * work);  // the fewest queries of a piece
    const int64_t heads_of_piece = std::clamp(fitting / group * group, group, heads);
    const std::vector<RowPiece> pieces = cut_rows(g, tokens, heads_of_piece * work);
    if (pieces.size() == 1 && heads_of_piece == heads) return kernel(g, q, k, v, mask, scale);
    const auto some = [&](ggml_tensor* t, int64_t rows, int64_t first, int64_t layers, int64_t first_layer) {
        return ggml_view_3d(g.ctx(), t, t->ne[0], rows, layers, t->nb[1], t->nb[2],
                            offset(t, 1, first) + offset(t, 2, first_layer));
    };
    ggml_tensor* y = filled(g, nullptr, head_dim, heads, tokens, 1);
    for (int64_t head = 0; head < heads; head += heads_of_piece) {
        const int64_t n = std::min(heads_of_piece, heads - head);
        for (const RowPiece& p : pieces) {
            ggml_tensor* out =
                kernel(g, some(q, p.count, p.first, n, head), some(k, k->ne[1], 0, n / group, head / group),
                       some(v, v->ne[1], 0, n / group, head / group),
                       mask ? some(mask, p.count, p.first, 1, 0) : nullptr, scale);
            y = g.after(y, ggml_cpy(g.ctx(), out, some(y, n, head, p.count, p.first)));
            g.compute_next(y);
        }
    }
    return y;
}

}  // namespace

ggml_tensor* softmax_attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                               float scale) {
    ggml_context* ctx = g.ctx();
    return in_pieces(g, softmax_kernel, ggml_permute(ctx, q, 0, 2, 1, 3), ggml_permute(ctx, k, 0, 2, 1, 3),
                     ggml_cont(ctx, ggml_permute(ctx, v, 1, 2, 0, 3)), mask, scale);
}

ggml_tensor* device_attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale) {
    ggml_context* ctx = g.ctx();
    ggml_tensor* given = v;
    // For a single query ggml's CPU kernel splits the keys by thread, which would make the sum depend on the thread
    // count.
    if (q->ne[2] == 1) return softmax_attention(g, q, k, v, mask, scale);
    const ggml_type type = g.backend().keys_type(g.device());
    const auto by_head = [&](ggml_tensor* t) {  // [head_dim, T, H]
        t = ggml_permute(ctx, t, 0, 2, 1, 3);
        return type == GGML_TYPE_F32 ? t : ggml_cast(ctx, t, type);
    };
    // What a worker has may be a GPU, too; floats lose nothing by it.
    const bool halves = type == GGML_TYPE_F16 || g.backend().remote();
    const float share = halves ? share_of_values(k->ne[2]) : 1;
    if (share < 1) v = ggml_scale(ctx, ggml_is_contiguous(v) ? v : ggml_cont(ctx, v), share);
    ggml_tensor *queries = ggml_permute(ctx, q, 0, 2, 1, 3), *keys = by_head(k), *values = by_head(v);
    // Not every device has a kernel for every width of a head.
    if (!g.backend().can(g.device(), flash_kernel(g, queries, keys, values, mask, scale)))
        return softmax_attention(g, q, k, given, mask, scale);
    ggml_tensor* out = in_pieces(g, flash_kernel, queries, keys, values, mask, scale);
    return share < 1 ? ggml_scale(ctx, out, 1 / share) : out;
}

bool has_own_attention(const Backend& backend, int64_t head_dim) {
    return backend.uses_host_memory() && head_dim <= max_head_dim;
}

ggml_tensor* attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale,
                       bool exact) {
    if (!has_own_attention(g.backend(), q->ne[0])) return device_attention(g, q, k, v, mask, scale);
    return own_attention(g, q, k, v, {mask, {}}, scale, exact || g.backend().exact());
}

ggml_tensor* attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, const AttentionBias& bias, float scale,
                       bool exact) {
    if (!has_own_attention(g.backend(), q->ne[0])) return device_attention(g, q, k, v, bias.mask, scale);
    return own_attention(g, q, k, v, {nullptr, bias}, scale, exact || g.backend().exact());
}

}  // namespace sdltx
