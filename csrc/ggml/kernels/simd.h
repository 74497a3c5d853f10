// Vectors of floats, as wide as the level that is compiled has registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sdltx::kernels {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * lanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * lanes)));

inline Vec load(const float* p) {
    Vec v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline Vec splat(float x) { return Vec{} + x; }
// a where b is no number: what was found so far stays.
inline Vec max(Vec a, Vec b) { return b > a ? b : a; }

// Half precision to float.
inline float half_to_float(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    const uint32_t rest = half & 0x7fffu, sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    // Half precision has 5 bits of exponent and 10 of fraction; 2^112 makes up for the difference in bias.
    const uint32_t bits = rest >= 0x7c00u ? 0x7f800000u | (rest & 0x3ffu) << 13 : rest << 13;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    if (rest < 0x7c00u) value *= 5.192296858534828e33f;
    return sign ? -value : value;
#endif
}

inline float sum_of(Vec v) {
    float sum = 0;
    for (int i = 0; i < lanes; ++i) sum += v[i];
    return sum;
}
inline float max_of(Vec v) {
    float most = v[0];
    for (int i = 1; i < lanes; ++i) most = v[i] > most ? v[i] : most;
    return most;
}

// e^x for x <= 88, to the last bit or two; what is below -87.3 gives e^-87.3, and what is no number stays none.
inline Vec exp(Vec x) {
    x = x < -87.3f ? splat(-87.3f) : x;
    constexpr float shift = 12582912;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    const Vec whole = (x * 1.44269504f + shift) - shift;
    const Vec f = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;  // ln 2 in two parts
    Vec p = splat(1.0f / 720);
    for (float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * f + c;
    const IntVec power = (__builtin_convertvector(whole, IntVec) + 127) << 23;
    return p * (Vec)power;
}

// The same to four digits, for what is rounded to bfloat16.
inline Vec rough_exp(Vec x) {
#if defined(__AVX512F__)
    const Vec z = x * 1.44269504f;
    const Vec whole = _mm512_maskz_roundscale_ps(0xffff, z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
              f = z - whole;
    Vec p = splat(0.0551716596f);  // 2^f for |f| <= 1/2
    for (float c : {0.242611125f, 0.693260968f, 0.999928057f}) p = p * f + c;
    return _mm512_maskz_scalef_ps(0xffff, p, whole);
#else
    return exp(x);
#endif
}

// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x / (1 + e^(-2u)), in place.
inline Vec gelu_tanh(Vec x) {
    const Vec u = x * (x * x * 0.044715f + 1.0f) * -1.5957691216057308f;
    return x / (exp(u > 88.0f ? splat(88.0f) : u) + 1.0f);
}
inline void gelu_tanh(float* x, int64_t n) {
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) store(x + i, gelu_tanh(load(x + i)));
    if (i == n) return;
    float rest[lanes] = {};
    std::memcpy(rest, x + i, static_cast<size_t>(n - i) * sizeof(float));
    store(rest, gelu_tanh(load(rest)));
    std::memcpy(x + i, rest, static_cast<size_t>(n - i) * sizeof(float));
}

// How rows are multiplied. A Unit is what one step of a sum takes of each of two rows.
struct F32 {
    using Unit = float;
    static constexpr int depth = 1;  // values of a unit

    // Units of n values times `scale`; what is missing of the last is 0.
    static void convert(const float* from, int64_t n, float scale, Unit* to) {
        for (int64_t i = 0; i < n; ++i) to[i] = from[i] * scale;
    }
    // Value i of each of `depth` rows as unit i; null: 0.
    static void interleave(const float* const* rows, int64_t n, Unit* to) {
        for (int64_t i = 0; i < n; ++i) to[i] = rows[0] ? rows[0][i] : 0.0f;
    }
    static Vec step(Vec sum, Unit x, const Unit* w) { return sum + x * load(w); }
    // e^x for x <= 0, as exact as a value is.
    static Vec weight(Vec x) { return exp(x); }
};

#if defined(__AVX512BF16__)

struct Bf16 {
    using Unit = uint32_t;  // two values of bfloat16
    static constexpr int depth = 2;

    static void convert(const float* from, int64_t n, float scale, Unit* to) {
        int64_t i = 0;
        for (; i + 16 <= n; i += 16)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i / 2),
                                reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(load(from + i) * scale)));
        if (i == n) return;
        const auto mask = static_cast<__mmask16>((1u << (n - i)) - 1);
        const __m512 rest = _mm512_maskz_loadu_ps(mask, from + i) * scale;
        const auto units = static_cast<__mmask8>((1u << ((n - i + 1) / 2)) - 1);
        _mm256_mask_storeu_epi32(to + i / 2, units, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(rest)));
    }
    static void interleave(const float* const* rows, int64_t n, Unit* to) {
        typedef uint16_t Halves __attribute__((vector_size(32)));
        typedef uint32_t Units __attribute__((vector_size(64)));
        for (int64_t i = 0; i < n; i += 16) {
            const int64_t count = n - i < 16 ? n - i : 16;
            const auto half = [&](const float* row) {
                Vec values{};
                if (row) std::memcpy(&values, row + i, static_cast<size_t>(count) * sizeof(float));
                return __builtin_convertvector((Halves)_mm512_cvtneps_pbh(values), Units);
            };
            const Units joined = half(rows[0]) | half(rows[1]) << 16;
            std::memcpy(to + i, &joined, static_cast<size_t>(count) * sizeof(Unit));
        }
    }
    static Vec weight(Vec x) { return rough_exp(x); }
    static Vec step(Vec sum, Unit x, const Unit* w) {
        const __m512i wide = _mm512_set1_epi32(static_cast<int>(x));
        return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(wide),
                                reinterpret_cast<__m512bh>(_mm512_loadu_si512(w)));
    }
};

#else

using Bf16 = F32;

#endif

template <typename P>
constexpr int64_t units(int64_t values) {
    return (values + P::depth - 1) / P::depth;
}

}  // namespace sdltx::kernels
