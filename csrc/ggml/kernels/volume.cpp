#include "volume.h"

#include <algorithm>

#include "simd.h"

namespace sdltx::kernels {

namespace {

// The pixel of n that one beside them stands for; -1: none, it is 0.
int64_t inside(int64_t i, int64_t n, bool reflect) {
    if (i >= 0 && i < n) return i;
    if (!reflect) return -1;
    return n == 1 ? 0 : i < 0 ? -i : 2 * (n - 1) - i;
}

template <typename P>
void pack(const VolumeJob& job, Share share) {
    using Unit = typename P::Unit;
    const int64_t pixel = units<P>(job.channels), line = (job.width + 2 * job.columns) * pixel;
    const int64_t lines = job.height + 2 * job.lines, items = job.count * lines;
    for (int64_t i = share.begin(items); i < share.end(items); ++i) {
        Unit* const to = static_cast<Unit*>(job.packed) + i * line;
        int64_t frame = job.first + i / lines;
        const int64_t from_line = inside(i % lines - job.lines, job.height, job.reflect);
        const bool there = frame >= 0 && frame < job.frames;
        if (from_line < 0 || (!there && !job.repeat)) {
            std::fill_n(to, line, Unit{});
            continue;
        }
        frame = std::clamp<int64_t>(frame, 0, job.frames - 1);
        const float* from = job.x + frame * job.frame + from_line * job.line;
        Unit* const middle = to + job.columns * pixel;
        if (job.pixel == job.channels && job.channels % P::depth == 0)
            P::convert(from, job.width * job.channels, 1, middle);
        else
            for (int64_t w = 0; w < job.width; ++w)
                P::convert(from + w * job.pixel, job.channels, 1, middle + w * pixel);
        for (int64_t c = 1; c <= job.columns; ++c)
            for (int64_t w : {-c, job.width - 1 + c}) {
                const int64_t other = inside(w, job.width, job.reflect);
                if (other < 0)
                    std::fill_n(middle + w * pixel, pixel, Unit{});
                else
                    std::copy_n(middle + other * pixel, pixel, middle + w * pixel);
            }
    }
}

}  // namespace

void pack_volume(const VolumeJob& job, Share share) {
    return job.exact ? pack<F32>(job, share) : pack<Bf16>(job, share);
}

}  // namespace sdltx::kernels
