// What is done to a row between two products, in one pass while it is in the cache.
#include "norm.h"

#include <algorithm>
#include <cmath>

#include "simd.h"

namespace sdltx::kernels {

namespace {

// 1 / the root of the mean of the squares.
float factor_of(const float* x, int64_t width, float eps) {
    Vec sums[4] = {};
    int64_t i = 0;
    for (; i + 4 * lanes <= width; i += 4 * lanes)
        for (int v = 0; v < 4; ++v) {
            const Vec values = load(x + i + v * lanes);
            sums[v] += values * values;
        }
    float sum = sum_of(sums[0] + sums[1]) + sum_of(sums[2] + sums[3]);
    for (; i < width; ++i) sum += x[i] * x[i];
    return 1 / std::sqrt(sum / static_cast<float>(width) + eps);
}

// Pairs (j, j + half) of each head.
void rotate(float* y, const NormJob& job, int64_t row) {
    const int64_t half = job.half, per_row = job.width / (2 * half);
    const int64_t token = row / job.rows_of_token, first = row % job.rows_of_token * per_row;
    for (int64_t h = 0; h < per_row; ++h, y += 2 * half) {
        const int64_t at = token * job.angles_token + (first + h) * job.angles_head;
        const float *cos = job.cos + at, *sin = job.sin + at;
        for (int64_t j = 0; j < half; ++j) {
            const float a = y[j], b = y[j + half];
            y[j] = a * cos[j] - b * sin[j];
            y[j + half] = b * cos[j] + a * sin[j];
        }
    }
}

}  // namespace

void norm(const NormJob& job, Share share) {
    for (int64_t r = share.begin(job.rows); r < share.end(job.rows); ++r) {
        const float* x = job.x + r * job.x_stride;
        float* y = job.y + r * job.width;
        const float factor = factor_of(x, job.width, job.eps);
        if (job.scale && job.shift)
            for (int64_t i = 0; i < job.width; ++i) y[i] = x[i] * factor * job.scale[i] + job.shift[i];
        else if (job.scale)
            for (int64_t i = 0; i < job.width; ++i) y[i] = x[i] * factor * job.scale[i];
        else
            for (int64_t i = 0; i < job.width; ++i) y[i] = x[i] * factor;
        if (job.half) rotate(y, job, r);
    }
}

void gate(const GateJob& job, Share share) {
    for (int64_t r = share.begin(job.rows); r < share.end(job.rows); ++r) {
        const float *x = job.x + r * job.width, *y = job.y + r * job.width;
        float* z = job.z + r * job.width;
        for (int64_t i = 0; i < job.width; ++i) z[i] = x[i] + y[i] * job.gate[i];
    }
}

void gelu_tanh(const GeluJob& job, Share share) {
    const int64_t begin = share.begin(job.count), count = share.end(job.count) - begin;
    std::copy_n(job.x + begin, count, job.y + begin);
    gelu_tanh(job.y + begin, count);
}

}  // namespace sdltx::kernels
