#include "noise.h"

#include <array>
#include <cmath>

namespace sdltx {

namespace {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint64_t key) {
    constexpr uint64_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
    constexpr uint32_t weyl[2] = {0x9E3779B9u, 0xBB67AE85u};
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = multiplier[0] * counter[0], b = multiplier[1] * counter[2];
        counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
                   static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
        k0 += weyl[0];
        k1 += weyl[1];
    }
    return counter;
}

}  // namespace

std::vector<float> normal_noise(uint64_t seed, NoiseStream stream, int64_t count, uint32_t step) {
    constexpr double two_pi = 6.283185307179586, unit = 1.0 / 4294967296.0;
    std::vector<float> out;
    out.reserve(static_cast<size_t>(count) + 3);
    for (uint64_t block = 0; static_cast<int64_t>(out.size()) < count; ++block) {
        const auto r = philox(
            {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream), step},
            seed);
        for (int pair = 0; pair < 4; pair += 2) {
            const double radius = std::sqrt(-2.0 * std::log((r[static_cast<size_t>(pair)] + 0.5) * unit));
            const double angle = two_pi * (r[static_cast<size_t>(pair) + 1] * unit);
            out.push_back(static_cast<float>(radius * std::cos(angle)));
            out.push_back(static_cast<float>(radius * std::sin(angle)));
        }
    }
    out.resize(static_cast<size_t>(count));
    return out;
}

double uniform_noise(uint64_t seed, NoiseStream stream, uint32_t step) {
    constexpr double unit = 1.0 / 4294967296.0;
    const auto r = philox({0, 0, static_cast<uint32_t>(stream), step}, seed);
    return ((r[0] + 0.5) * unit + r[1]) * unit;
}

}  // namespace sdltx
