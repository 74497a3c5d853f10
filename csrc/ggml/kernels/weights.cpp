#include "weights.h"

#include "fp8.h"

namespace sdltx::kernels {

namespace {

float half_at(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return half_to_float(bits);
}

void from_half(const uint8_t* from, int64_t n, float* to) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        __m128i bits;
        std::memcpy(&bits, from + 2 * i, sizeof bits);
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(bits));
    }
#endif
    for (; i < n; ++i) to[i] = half_at(from + 2 * i);
}

void from_bfloat(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * i, sizeof bits);
        const uint32_t wide = static_cast<uint32_t>(bits) << 16;
        std::memcpy(to + i, &wide, sizeof wide);
    }
}

// Blocks of 32: a scale in half precision, then signed bytes.
void from_q8_0(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += 32, from += 34) {
        const float scale = half_at(from);
        for (int j = 0; j < 32; ++j) to[i + j] = scale * static_cast<float>(static_cast<int8_t>(from[2 + j]));
    }
}

// Blocks of 32: a scale in half precision, then 4 bits each, less 8; a byte has a value of each half of the block.
void from_q4_0(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += 32, from += 18) {
        const float scale = half_at(from);
        for (int j = 0; j < 16; ++j) {
            to[i + j] = scale * static_cast<float>((from[2 + j] & 15) - 8);
            to[i + 16 + j] = scale * static_cast<float>((from[2 + j] >> 4) - 8);
        }
    }
}

// The same with a fifth bit, of all values in four bytes before them, less 16.
void from_q5_0(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += 32, from += 22) {
        const float scale = half_at(from);
        uint32_t fifth;
        std::memcpy(&fifth, from + 2, sizeof fifth);
        for (int j = 0; j < 16; ++j) {
            const auto low = static_cast<int>(fifth >> j & 1) << 4, high = static_cast<int>(fifth >> (16 + j) & 1) << 4;
            to[i + j] = scale * static_cast<float>(((from[6 + j] & 15) | low) - 16);
            to[i + 16 + j] = scale * static_cast<float>(((from[6 + j] >> 4) | high) - 16);
        }
    }
}

// Blocks of 256 in two halves: the lower 4 bits of each value, the upper 2, signed scales of 16 values each, and a
// scale of those in half precision; less 32.
void from_q6_k(const uint8_t* from, int64_t n, float* to) {
    for (int64_t i = 0; i < n; i += 256, from += 210) {
        const float scale = half_at(from + 208);
        for (int half = 0; half < 2; ++half) {
            const uint8_t *low = from + 64 * half, *high = from + 128 + 32 * half;
            const auto* scales = reinterpret_cast<const int8_t*>(from + 192 + 8 * half);
            for (int quarter = 0; quarter < 4; ++quarter)
                for (int part = 0; part < 2; ++part) {
                    const float s = scale * static_cast<float>(scales[2 * quarter + part]);
                    float* out = to + i + 128 * half + 32 * quarter + 16 * part;
                    const uint8_t *l = low + 32 * (quarter % 2) + 16 * part, *h = high + 16 * part;
                    for (int j = 0; j < 16; ++j)
                        out[j] = s * static_cast<float>((l[j] >> (quarter / 2 * 4) & 15) +
                                                        ((h[j] >> (2 * quarter) & 3) << 4) - 32);
                }
        }
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
        case WeightType::e4m3:
        case WeightType::e5m2:
            if (unpack_fp8<P>(w, from, row, first, count, floats, to)) return;
            break;
        case WeightType::q8_0:
            from_q8_0(from, count, floats);
            break;
        case WeightType::q4_0:
            from_q4_0(from, count, floats);
            break;
        case WeightType::q5_0:
            from_q5_0(from, count, floats);
            break;
        case WeightType::q6_k:
            from_q6_k(from, count, floats);
            break;
        case WeightType::other:
            w.widen(from, floats, count);
    }
    P::convert(floats, count, 1, to);
}

template void unpack<F32>(const WeightRows&, int64_t, int64_t, int64_t, int64_t, float*, F32::Unit*);
#if defined(__AVX512BF16__)
template void unpack<Bf16>(const WeightRows&, int64_t, int64_t, int64_t, int64_t, float*, Bf16::Unit*);
#endif

}  // namespace sdltx::kernels
