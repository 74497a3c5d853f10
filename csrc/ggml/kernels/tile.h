// The inner loop of products: some rows times a panel of columns, with the sums in registers.
#pragma once

#include <utility>

#include "simd.h"

namespace sdltx::kernels {

// Where the first cache line in some memory begins, of which one more has to be there.
constexpr size_t cache_line = 64;  // bytes
template <typename T>
T* aligned(const void* memory) {
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory) + cache_line - 1) / cache_line * cache_line);
}

// Rows of a tile and vectors of its columns: what keeps the registers of a level full.
constexpr int tile_rows = 6;
constexpr int tile_vectors = lanes == 16 ? 4 : 2;
constexpr int panel_width = tile_vectors * lanes;

// A panel holds panel_width columns: for each unit of their length, that unit of each column.

// Units of a row that are multiplied, from `offset` on.
struct Run {
    int64_t offset, length;
};

template <typename P, int rows, int vectors = tile_vectors>
inline void tile(const typename P::Unit* const* x, const Run* runs, int count, const typename P::Unit* panel,
                 float* const* out, bool add) {
    Vec sums[rows][vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sums[r][v] = add ? load(out[r] + v * lanes) : Vec{};
    for (int i = 0; i < count; ++i) {
        const typename P::Unit* from[rows];
        for (int r = 0; r < rows; ++r) from[r] = x[r] + runs[i].offset;
        for (int64_t k = 0; k < runs[i].length; ++k, panel += panel_width) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; ++v) sums[r][v] = P::step(sums[r][v], from[r][k], panel + v * lanes);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) store(out[r] + v * lanes, sums[r][v]);
}

// Elements first, first + 1, ... of two vectors in turns.
template <int first, int... i>
inline IntVec shuffled(IntVec a, IntVec b, std::integer_sequence<int, i...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, (first + i / 2 + i % 2 * lanes)...);
#else
    return __builtin_shuffle(a, b, IntVec{(first + i / 2 + i % 2 * lanes)...});
#endif
}

// columns[u][i] = rows[i][u], for lanes rows and `length` <= lanes units of 4 bytes; strides in units. Reads lanes
// units of each row.
template <typename Unit>
inline void transpose(const Unit* rows, int64_t row_stride, Unit* columns, int64_t column_stride, int64_t length) {
    IntVec v[lanes], w[lanes];
    for (int i = 0; i < lanes; ++i) std::memcpy(&v[i], rows + i * row_stride, sizeof v[i]);
    // Shuffling the cards of a deck log2 of its size times turns it over.
#pragma GCC unroll 4
    for (int round = 1; round < lanes; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes / 2; ++i) {
            w[2 * i] = shuffled<0>(v[i], v[i + lanes / 2], std::make_integer_sequence<int, lanes>{});
            w[2 * i + 1] = shuffled<lanes / 2>(v[i], v[i + lanes / 2], std::make_integer_sequence<int, lanes>{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) v[i] = w[i];
    }
    for (int i = 0; i < length; ++i) std::memcpy(columns + i * column_stride, &v[i], sizeof v[i]);
}

// out[r][j] (+)= sum over the units of the runs of x[r], one after the other, and column j. 1 to tile_rows rows;
// `width` columns are wanted, and those that fill a register with them are computed.
template <typename P>
inline void multiply(int rows, const typename P::Unit* const* x, const Run* runs, int count,
                     const typename P::Unit* panel, float* const* out, bool add, int64_t width = panel_width) {
    static_assert(tile_rows == 6);
    switch (rows) {
        case 1:
            return tile<P, 1>(x, runs, count, panel, out, add);
        case 2:
            return tile<P, 2>(x, runs, count, panel, out, add);
        case 3:
            return tile<P, 3>(x, runs, count, panel, out, add);
        case 4:
            return tile<P, 4>(x, runs, count, panel, out, add);
        case 5:
            return tile<P, 5>(x, runs, count, panel, out, add);
        default:
            if (width <= lanes) return tile<P, 6, 1>(x, runs, count, panel, out, add);
            if (width <= 2 * lanes) return tile<P, 6, 2>(x, runs, count, panel, out, add);
            if (tile_vectors > 3 && width <= 3 * lanes) return tile<P, 6, 3>(x, runs, count, panel, out, add);
            return tile<P, 6>(x, runs, count, panel, out, add);
    }
}

}  // namespace sdltx::kernels
