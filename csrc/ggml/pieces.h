// Operations in pieces. A run can be stopped between operations only, so none may be longer than a user's patience.
#pragma once

#include <cstdint>
#include <vector>

#include "ops.h"
#include "plan.h"

namespace sdltx {

struct RowPiece {
    int64_t first, count;
};

// Cuts `rows`, of `work` multiply-adds each, so that a piece takes no more than Backend::patience(), if it can be: a
// piece has at least 64 rows, as kernels take so many at a time, and would add up in another order with fewer.
std::vector<RowPiece> cut_rows(const Plan& g, int64_t rows, int64_t work);

// op(x), where x is [in, T], op(x) is [out, T], and every column of it belongs to one of x and takes `work`
// multiply-adds.
template <typename Op>
ggml_tensor* by_rows(Plan& g, ggml_tensor* x, int64_t out, int64_t work, Op op) {
    const std::vector<RowPiece> pieces = cut_rows(g, x->ne[1], work);
    if (pieces.size() == 1 || !ggml_is_matrix(x)) return op(x);
    ggml_tensor* y = filled(g, nullptr, out, x->ne[1], 1, 1);
    const auto part = [&](ggml_tensor* t, const RowPiece& p) {
        return ggml_view_2d(g.ctx(), t, t->ne[0], p.count, t->nb[1], static_cast<size_t>(p.first) * t->nb[1]);
    };
    for (const RowPiece& p : pieces) {
        y = g.after(y, ggml_cpy(g.ctx(), op(part(x, p)), part(y, p)));
        g.compute_next(y);
    }
    return y;
}

}  // namespace sdltx
