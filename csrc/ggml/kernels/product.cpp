// Products of stored weights with rows of activations. A thread unpacks some panels of weights, as much of their length
// as fits the second cache, and multiplies all rows with them.
#include "product.h"

#include <algorithm>

#include "tile.h"
#include "weights.h"

namespace sdltx::kernels {

namespace {

constexpr int64_t chunk_units = 1024, panels_together = 2;

template <typename P>
constexpr int64_t chunk = chunk_units * P::depth;

// Units of a chunk: all that there are, or chunk_units.
int64_t chunk_length(int64_t columns, int64_t matrices, int depth) {
    return std::min((columns + depth - 1) / depth * matrices, chunk_units);
}

// Of a thread, in floats: panels, rows on their way into one, and a row as floats.
int64_t scratch(int64_t columns, int64_t matrices, int depth) {
    const int64_t length = chunk_length(columns, matrices, depth);
    return (panels_together * panel_width + lanes + depth) * ((length + lanes - 1) / lanes * lanes);
}

template <typename P>
class Panels {
    using Unit = typename P::Unit;

 public:
    Panels(const ProductJob& job, Share share)
        : job_(job),
          row_units_(units<P>(job.columns)),
          padded_((chunk_length(job.columns, job.w.matrices, P::depth) + lanes - 1) / lanes * lanes) {
        float* mine = aligned<float>(job.scratch) + share.index * scratch(job.columns, job.w.matrices, P::depth);
        panels_ = reinterpret_cast<Unit*>(mine);
        rows_ = panels_ + panels_together * panel_width * padded_;
        floats_ = reinterpret_cast<float*>(rows_ + lanes * padded_);
    }

    // Panels [begin, end), activations [first, last).
    void run(int64_t begin, int64_t end, int64_t first, int64_t last) {
        for (int64_t p = begin; p < end; p += panels_together) {
            const int64_t count = std::min(panels_together, end - p);
            for (at_ = 0; at_ < row_units_ * job_.w.matrices;) {
                const bool goes_on = at_ > 0;
                next_chunk();
                for (int64_t i = 0; i < count; ++i) fill(panels_ + i * panel_width * padded_, (p + i) * panel_width);
                for (int64_t t = first; t < last; t += tile_rows)
                    multiply_rows(p, count, goes_on, t, static_cast<int>(std::min<int64_t>(tile_rows, last - t)));
            }
        }
    }

 private:
    // Part of the rows of a matrix.
    struct Part {
        int64_t matrix, first, values;
    };

    // Takes as many units as fit: of one matrix, or of as many as are whole.
    void next_chunk() {
        parts_ = 0;
        for (int64_t left = chunk_units; left > 0 && at_ < row_units_ * job_.w.matrices && parts_ < most_parts;) {
            const int64_t matrix = at_ / row_units_, first = at_ % row_units_;
            const int64_t taken = std::min(left, row_units_ - first);
            if (parts_ && taken < row_units_) break;
            part_[parts_] = {matrix, first * P::depth, std::min(taken * P::depth, job_.columns - first * P::depth)};
            run_[parts_++] = {job_.x.offsets[matrix] + first, taken};
            at_ += taken;
            left -= taken;
        }
    }

    // Weights [first, first + panel_width) as a panel; those that there are not are 0.
    void fill(Unit* panel, int64_t first) {
        for (int i = 0; i < parts_; panel += run_[i++].length * panel_width)
            for (int64_t column = 0; column < panel_width; column += lanes) {
                for (int64_t j = 0; j < lanes; ++j) {
                    const int64_t row = first + column + j;
                    if (row < job_.w.rows)
                        unpack<P>(job_.w, part_[i].matrix, row, part_[i].first, part_[i].values, floats_,
                                  rows_ + j * padded_);
                    else
                        std::fill_n(rows_ + j * padded_, run_[i].length, Unit{});
                }
                for (int64_t u = 0; u < run_[i].length; u += lanes)
                    transpose(rows_ + u, padded_, panel + u * panel_width + column, panel_width,
                              std::min<int64_t>(lanes, run_[i].length - u));
            }
    }

    const Unit* row_of_x(int64_t t) const {
        const ProductRows& x = job_.x;
        const int64_t line = t / x.width;
        return static_cast<const Unit*>(x.data) + line / x.height * x.frame + line % x.height * x.line +
               t % x.width * x.pixel;
    }

    void multiply_rows(int64_t p, int64_t count, bool goes_on, int64_t t, int rows) {
        const Unit* x[tile_rows];
        float* out[tile_rows];
        float border[tile_rows * panel_width];
        const bool last = at_ == row_units_ * job_.w.matrices;
        for (int r = 0; r < rows; ++r) x[r] = row_of_x(t + r);
        for (int64_t i = 0; i < count; ++i) {
            const int64_t column = (p + i) * panel_width, width = std::min<int64_t>(panel_width, job_.w.rows - column);
            const bool whole = width == panel_width;
            for (int r = 0; r < rows; ++r) {
                float* y = job_.y + (t + r) * job_.y_stride + column;
                out[r] = whole ? y : border + r * panel_width;
                if (!whole && goes_on) std::copy_n(y, width, out[r]);
            }
            multiply<P>(rows, x, run_, parts_, panels_ + i * panel_width * padded_, out, goes_on, width);
            for (int r = 0; r < rows; ++r) {
                if (last) finish(out[r], t + r, column, width);
                if (!whole) std::copy_n(out[r], width, job_.y + (t + r) * job_.y_stride + column);
            }
        }
    }

    // What follows the sums: scale, bias, residual, activation.
    void finish(float* y, int64_t row, int64_t column, int64_t width) const {
        const float* scale = job_.scale ? job_.scale + (job_.one_scale ? 0 : column) : nullptr;
        const float* bias = job_.bias ? job_.bias + column : nullptr;
        const float* residual = job_.residual ? job_.residual + row * job_.y_stride + column : nullptr;
        if (!scale && !bias && !residual && job_.activation == Activation::none) return;
        for (int64_t j = 0; j < width; ++j) {
            if (scale) y[j] *= scale[job_.one_scale ? 0 : j];
            if (bias) y[j] += bias[j];
            if (residual) y[j] += residual[j];
        }
        if (job_.activation == Activation::gelu_tanh) gelu_tanh(y, width);
    }

    const ProductJob& job_;
    static constexpr int most_parts = 64;
    const int64_t row_units_, padded_;  // of a matrix, of a chunk
    Unit *panels_, *rows_;
    float* floats_;
    int64_t at_ = 0;  // units of all matrices, one after the other, that are done
    int parts_ = 0;   // of the chunk
    Part part_[most_parts];
    Run run_[most_parts];
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

int64_t packed_units(int64_t columns) { return units<Bf16>(columns); }

void pack_rows(const float* x, int64_t stride, int64_t columns, int64_t rows, void* packed, Share share) {
    const int64_t length = units<Bf16>(columns);
    for (int64_t t = share.begin(rows); t < share.end(rows); ++t)
        Bf16::convert(x + t * stride, columns, 1, static_cast<Bf16::Unit*>(packed) + t * length);
}

size_t product_scratch(int64_t columns, int64_t matrices, int threads, bool exact) {
    return static_cast<size_t>(threads * scratch(columns, matrices, exact ? F32::depth : Bf16::depth)) * sizeof(float) +
           cache_line;
}

void product(const ProductJob& job, Share share) { return job.exact ? run<F32>(job, share) : run<Bf16>(job, share); }

}  // namespace sdltx::kernels
