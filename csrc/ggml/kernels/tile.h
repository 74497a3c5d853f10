// The inner loop of products: some rows times a panel of columns, with the sums in registers.
#pragma once

#include "simd.h"

namespace sdltx::kernels {

// Rows of a tile and vectors of its columns: what keeps the registers of a level full.
constexpr int tile_rows = 6;
constexpr int tile_vectors = lanes == 16 ? 4 : 2;
constexpr int panel_width = tile_vectors * lanes;

// A panel holds panel_width columns: for each unit of their length, that unit of each column.

template <typename P, int rows>
inline void tile(const typename P::Unit* const* x, const typename P::Unit* panel, int64_t length, float* const* out,
                 bool add) {
    Vec sums[rows][tile_vectors];
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < tile_vectors; ++v) sums[r][v] = add ? load(out[r] + v * lanes) : Vec{};
    for (int64_t k = 0; k < length; ++k, panel += panel_width) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
            for (int v = 0; v < tile_vectors; ++v) sums[r][v] = P::step(sums[r][v], x[r][k], panel + v * lanes);
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < tile_vectors; ++v) store(out[r] + v * lanes, sums[r][v]);
}

// out[r][j] (+)= sum over `length` units of x[r] and column j. 1 to tile_rows rows.
template <typename P>
inline void multiply(int rows, const typename P::Unit* const* x, const typename P::Unit* panel, int64_t length,
                     float* const* out, bool add) {
    static_assert(tile_rows == 6);
    switch (rows) {
        case 1:
            return tile<P, 1>(x, panel, length, out, add);
        case 2:
            return tile<P, 2>(x, panel, length, out, add);
        case 3:
            return tile<P, 3>(x, panel, length, out, add);
        case 4:
            return tile<P, 4>(x, panel, length, out, add);
        case 5:
            return tile<P, 5>(x, panel, length, out, add);
        default:
            return tile<P, 6>(x, panel, length, out, add);
    }
}

}  // namespace sdltx::kernels
