// Anti-aliased snake activation in one pass: some samples at a time of as many channels as a register holds.
#include "snake.h"

#include <algorithm>

#include "simd.h"

namespace sdltx::kernels {

namespace {

constexpr int64_t block = 64;          // samples
constexpr int reach = snake_taps / 4;  // samples on each side that a filter needs of the other's results
constexpr int64_t held = block + 2 * reach;

// sin^2, which has the period pi, for |x| below some millions.
Vec squared_sine(Vec x) {
    constexpr float shift = 12582912;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    const Vec turns = (x * 0.318309886f + shift) - shift;
    const Vec r = ((x - turns * 3.140625f) - turns * 9.67025757e-4f) - turns * 6.27711415e-7f;  // pi in three parts
    const Vec q = r * r;
    Vec p = splat(-1.0f / 39916800);
    for (float c : {1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6, 1.0f}) p = p * q + c;
    return p * p * q;
}

// Some channels, from `first` on.
class Channels {
 public:
    Channels(const SnakeJob& job, int64_t first)
        : job_(job),
          first_(first),
          count_(std::min<int64_t>(lanes, job.channels - first)),
          frequency_(some(job.frequency + first)),
          weight_(some(job.weight + first)) {}

    void run(int64_t begin, int64_t end) {
        // The signal at twice the rate in two halves, even and odd samples.
        Vec even[held], odd[held];
        for (int64_t j = begin - reach; j < end + reach; ++j) {
            const int64_t at = j - begin + reach;
            if (j >= 0 && j < job_.length) {
                even[at] = half(j, 0);
                odd[at] = half(j, 1);
            } else {  // the first one is an even one, the last an odd one
                even[at] = odd[at] = j < 0 ? half(0, 0) : half(job_.length - 1, 1);
            }
        }
        for (int64_t t = begin; t < end; ++t) {
            Vec sum{};
            for (int i = 0; i < snake_taps / 2; ++i) {
                const int64_t at = t - begin + i;  // of t + i - reach
                sum += even[at + 1] * job_.down[1 + 2 * i] + odd[at] * job_.down[2 * i];
            }
            store_some(job_.y + t * job_.channels + first_, sum);
        }
    }

 private:
    Vec some(const float* p) const {
        if (count_ == lanes) return load(p);
        Vec v{};
        std::memcpy(&v, p, static_cast<size_t>(count_) * sizeof(float));
        return v;
    }
    void store_some(float* p, Vec v) const { std::memcpy(p, &v, static_cast<size_t>(count_) * sizeof(float)); }

    // Sample 2 t + odd of the signal at twice the rate, activated.
    Vec half(int64_t t, int odd) const {
        Vec z{};
        for (int i = 0; i < snake_taps / 2; ++i) {
            const int64_t at = std::clamp<int64_t>(t + reach - 1 + odd - i, 0, job_.length - 1);
            z += some(job_.x + at * job_.channels + first_) * (2 * job_.up[1 - odd + 2 * i]);
        }
        return z + weight_ * squared_sine(z * frequency_);
    }

    const SnakeJob& job_;
    const int64_t first_, count_;
    const Vec frequency_, weight_;
};

}  // namespace

void snake(const SnakeJob& job, Share share) {
    const int64_t blocks = (job.length + block - 1) / block;
    for (int64_t b = share.begin(blocks); b < share.end(blocks); ++b)
        for (int64_t c = 0; c < job.channels; c += lanes)
            Channels(job, c).run(b * block, std::min(job.length, (b + 1) * block));
}

}  // namespace sdltx::kernels
