#include "weights.h"

#include <algorithm>

namespace sdltx::kernels {

namespace {

void from_half(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * i, sizeof bits);
        to[i] = widened(bits);
    }
}

void from_bfloat(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * i, sizeof bits);
        const uint32_t wide = static_cast<uint32_t>(bits) << 16;
        std::memcpy(to + i, &wide, sizeof wide);
    }
}

// Blocks of 32 with a half precision scale before 32 signed bytes.
void from_q8_0(const uint8_t* from, int64_t n, float* to) {
    constexpr int64_t block = 32, bytes = 34;
    for (int64_t i = 0; i < n; i += block, from += bytes) {
        uint16_t bits;
        std::memcpy(&bits, from, sizeof bits);
        const float scale = widened(bits);
        const auto* q = reinterpret_cast<const int8_t*>(from + 2);
        for (int64_t j = 0; j < block; ++j) to[i + j] = scale * static_cast<float>(q[j]);
    }
}

}  // namespace

template <typename P>
void unpack(const WeightRows& w, int64_t matrix, int64_t row, int64_t first, int64_t count, float* floats,
            typename P::Unit* to) {
    const uint8_t* from = static_cast<const uint8_t*>(w.data) + matrix * w.matrix_stride + row * w.stride +
                          first / w.block * w.block_bytes;
    switch (w.type) {
        case WeightType::f32:
            std::memcpy(floats, from, static_cast<size_t>(count) * sizeof(float));
            break;
        case WeightType::f16:
            from_half(from, count, floats);
            break;
        case WeightType::bf16:
            if constexpr (P::depth == 2) {
                to[(count - 1) / 2] = 0;
                std::memcpy(to, from, static_cast<size_t>(count) * sizeof(uint16_t));
                return;
            }
            from_bfloat(from, count, floats);
            break;
        case WeightType::q8_0:
            from_q8_0(from, count, floats);
            break;
        case WeightType::other:
            w.widen(from, floats, count);
    }
    P::convert(floats, count, 1, to);
}

template void unpack<Single>(const WeightRows&, int64_t, int64_t, int64_t, int64_t, float*, Single::Unit*);
#if defined(__AVX512BF16__)
template void unpack<Half>(const WeightRows&, int64_t, int64_t, int64_t, int64_t, float*, Half::Unit*);
#endif

}  // namespace sdltx::kernels
