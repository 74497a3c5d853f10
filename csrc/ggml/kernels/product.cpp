// Products of stored weights with rows of activations. A thread unpacks some panels of weights, as much of their length
// as fits the second cache, and multiplies all rows with them.
#include "product.h"

#include <algorithm>

#include "tile.h"
#include "weights.h"

namespace sdltx::kernels {

namespace {

constexpr int64_t chunk_units = 1024, panels_together = 2;
constexpr size_t line = 64;  // bytes

template <typename P>
constexpr int64_t chunk = chunk_units * P::depth;

float* aligned(void* p) { return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(p) + line - 1) / line * line); }

// Of a thread, in floats: panels, rows on their way into one, and a row as floats.
int64_t scratch(int64_t columns, int depth) {
    const int64_t length = std::min((columns + depth - 1) / depth, chunk_units);
    return (panels_together * panel_width + lanes + depth) * ((length + lanes - 1) / lanes * lanes);
}

template <typename P>
class Panels {
    using Unit = typename P::Unit;

 public:
    Panels(const ProductJob& job, Share share)
        : job_(job),
          length_(std::min(units<P>(job.columns), chunk_units)),
          padded_((length_ + lanes - 1) / lanes * lanes) {
        float* mine = aligned(job.scratch) + share.index * scratch(job.columns, P::depth);
        panels_ = reinterpret_cast<Unit*>(mine);
        rows_ = panels_ + panels_together * panel_width * padded_;
        floats_ = reinterpret_cast<float*>(rows_ + lanes * padded_);
    }

    // Panels [begin, end), activations [first, last).
    void run(int64_t begin, int64_t end, int64_t first, int64_t last) {
        for (int64_t p = begin; p < end; p += panels_together) {
            const int64_t count = std::min(panels_together, end - p);
            for (int64_t k = 0; k < job_.columns; k += chunk<P>) {
                const int64_t values = std::min(chunk<P>, job_.columns - k);
                for (int64_t i = 0; i < count; ++i)
                    fill(panels_ + i * panel_width * padded_, (p + i) * panel_width, k, values);
                for (int64_t t = first; t < last; t += tile_rows)
                    multiply_rows(p, count, k, values, t, static_cast<int>(std::min<int64_t>(tile_rows, last - t)));
            }
        }
    }

 private:
    // Weights [first, first + panel_width) as a panel; those that there are not are 0.
    void fill(Unit* panel, int64_t first, int64_t k, int64_t values) {
        const int64_t length = units<P>(values);
        for (int64_t column = 0; column < panel_width; column += lanes) {
            for (int64_t i = 0; i < lanes; ++i) {
                const int64_t row = first + column + i;
                if (row < job_.w.rows)
                    unpack<P>(job_.w, row, k, values, floats_, rows_ + i * padded_);
                else
                    std::fill_n(rows_ + i * padded_, length, Unit{});
            }
            for (int64_t u = 0; u < length; u += lanes)
                transpose(rows_ + u, padded_, panel + u * panel_width + column, panel_width,
                          std::min<int64_t>(lanes, length - u));
        }
    }

    void multiply_rows(int64_t p, int64_t count, int64_t k, int64_t values, int64_t t, int rows) {
        const Unit* x[tile_rows];
        float* out[tile_rows];
        float border[tile_rows * panel_width];
        const auto* packed = static_cast<const Unit*>(job_.x);
        for (int r = 0; r < rows; ++r) x[r] = packed + (t + r) * job_.x_stride + k / P::depth;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t column = (p + i) * panel_width, width = std::min<int64_t>(panel_width, job_.w.rows - column);
            const bool whole = width == panel_width;
            for (int r = 0; r < rows; ++r) {
                float* y = job_.y + (t + r) * job_.y_stride + column;
                out[r] = whole ? y : border + r * panel_width;
                if (!whole && k) std::copy_n(y, width, out[r]);
            }
            multiply<P>(rows, x, panels_ + i * panel_width * padded_, units<P>(values), out, k > 0);
            if (k + values == job_.columns)
                for (int r = 0; r < rows; ++r) finish(out[r], column, width);
            if (!whole)
                for (int r = 0; r < rows; ++r) std::copy_n(out[r], width, job_.y + (t + r) * job_.y_stride + column);
        }
    }

    // What follows the sums: scale, bias, activation.
    void finish(float* y, int64_t column, int64_t width) const {
        const float* scale = job_.scale ? job_.scale + (job_.one_scale ? 0 : column) : nullptr;
        const float* bias = job_.bias ? job_.bias + column : nullptr;
        if (!scale && !bias && job_.activation == Activation::none) return;
        for (int64_t j = 0; j < width; ++j) {
            if (scale) y[j] *= scale[job_.one_scale ? 0 : j];
            if (bias) y[j] += bias[j];
        }
        if (job_.activation == Activation::gelu_tanh) gelu_tanh(y, width);
    }

    const ProductJob& job_;
    const int64_t length_, padded_;  // of a chunk, in units
    Unit *panels_, *rows_;
    float* floats_;
};

template <typename P>
void run(const ProductJob& job, Share share) {
    Panels<P> panels(job, share);
    const int64_t count = (job.w.rows + panel_width - 1) / panel_width;
    if (count >= share.count)
        panels.run(share.begin(count), share.end(count), 0, job.rows);
    else
        panels.run(0, count, share.begin(job.rows), share.end(job.rows));
}

}  // namespace

int64_t packed_units(int64_t columns) { return units<Half>(columns); }

void pack_rows(const float* x, int64_t stride, int64_t columns, int64_t rows, void* packed, Share share) {
    const int64_t length = units<Half>(columns);
    for (int64_t t = share.begin(rows); t < share.end(rows); ++t)
        Half::convert(x + t * stride, columns, 1, static_cast<Half::Unit*>(packed) + t * length);
}

size_t product_scratch(int64_t columns, int threads, bool exact) {
    return static_cast<size_t>(threads * scratch(columns, exact ? Single::depth : Half::depth)) * sizeof(float) + line;
}

void product(const ProductJob& job, Share share) { return job.exact ? run<Single>(job, share) : run<Half>(job, share); }

}  // namespace sdltx::kernels
