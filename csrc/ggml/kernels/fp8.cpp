#include "fp8.h"

#include <cstring>

namespace sdltx::kernels {

namespace {

// 8 bits: sign, 4 of exponent, 3 of mantissa, without infinities; the two NaNs have all of them set. In the places of
// half precision they are the same value divided by 256, denormal ones too. `factor`: what those are multiplied with.
void from_e4m3(const uint8_t* from, int64_t n, float factor, float* to) {
    constexpr int magnitude = 0x7f, half_nan = 0x7e00;
    int64_t i = 0;
#if defined(__F16C__) && defined(__SSE4_1__)
    const __m128i all = _mm_set1_epi16(magnitude), sign = _mm_set1_epi16(0x80), nan = _mm_set1_epi16(half_nan);
    for (; i + 8 <= n; i += 8) {
        const __m128i codes = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i)));
        const __m128i rest = _mm_and_si128(codes, all);
        __m128i half = _mm_or_si128(_mm_slli_epi16(_mm_and_si128(codes, sign), 8), _mm_slli_epi16(rest, 7));
        half = _mm_or_si128(half, _mm_and_si128(_mm_cmpeq_epi16(rest, all), nan));
        _mm256_storeu_ps(to + i, _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(factor)));
    }
#endif
    for (; i < n; ++i) {
        const int rest = from[i] & magnitude;
        const int half = (from[i] & 0x80) << 8 | rest << 7 | (rest == magnitude ? half_nan : 0);
        to[i] = factor * half_to_float(static_cast<uint16_t>(half));
    }
}

// 5 bits of exponent, 2 of mantissa: the upper half of half precision.
void from_e5m2(const uint8_t* from, int64_t n, float* to) {
    int64_t i = 0;
#if defined(__F16C__) && defined(__SSE4_1__)
    for (; i + 8 <= n; i += 8) {
        const __m128i codes = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + i)));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_slli_epi16(codes, 8)));
    }
#endif
    for (; i < n; ++i) to[i] = half_to_float(static_cast<uint16_t>(from[i] << 8));
}

float power_of_two(uint8_t code) {
    constexpr uint32_t smallest = 0x00400000, nan = 0x7fc00000;
    const uint32_t bits = code == 0 ? smallest : code == no_power ? nan : static_cast<uint32_t>(code) << 23;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

uint8_t code_of_block(const WeightRows& w, int64_t row, int64_t value) {
    return w.powers[place_of_block_scale(row, value / w.block, w.stride / w.block_bytes)];
}

// Blocks [first, ...) of a row, each with a power of two.
void from_mxfp8(const WeightRows& w, const uint8_t* from, int64_t row, int64_t first, int64_t count, float* to) {
    constexpr uint8_t largest = 127 + 119;  // that may be multiplied by 256
    for (int64_t i = 0; i < count; i += w.block) {
        const uint8_t code = code_of_block(w, row, first + i);
        const float power = power_of_two(code);
        from_e4m3(from + i, w.block, code <= largest ? 256 * power : 256, to + i);
        for (int64_t j = i; code > largest && j < i + w.block; ++j) to[j] *= power;
    }
}

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)

constexpr int own_bias = 127;

// Values m / 2^mantissa * 2^(1 - bias) as bfloat16.
template <int mantissa, int bias>
struct Denormals {
    uint16_t values[32] = {};

    constexpr Denormals() {
        for (int m = 1; m < 1 << mantissa; ++m) {
            int exponent = 0;
            while (m >> (exponent + 1)) ++exponent;
            values[m] = static_cast<uint16_t>((own_bias + 1 - bias - mantissa + exponent) << 7 | (m - (1 << exponent))
                                                                                                     << (7 - exponent));
        }
    }
};

// Bfloat16 has the same places with a wider exponent: normal values are shifted and get its bias, the few denormal ones
// are looked up. `power`: of two, for all of them; every exponent stays that of a normal number.
template <int mantissa, int bias>
void to_bfloat(const uint8_t* from, int64_t n, int power, uint16_t* to) {
    constexpr int infinity = 0x7f80, nan = 0x7fc0, first_normal = 1 << mantissa;
    constexpr bool has_infinity = mantissa == 2;
    alignas(64) static constexpr Denormals<mantissa, bias> denormals;
    const __m512i table = _mm512_load_si512(denormals.values), all = _mm512_set1_epi16(0x7f),
                  sign = _mm512_set1_epi16(0x80), offset = _mm512_set1_epi16((own_bias - bias) << 7),
                  shift = _mm512_set1_epi16(static_cast<short>(power << 7));
    for (int64_t i = 0; i < n; i += 32) {
        const auto some = static_cast<__mmask32>(n - i < 32 ? (1U << (n - i)) - 1 : ~0U);
        const __m512i codes = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(some, from + i)),
                      magnitude = _mm512_and_si512(codes, all);
        const __mmask32 small = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(first_normal));
        __m512i value = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 7 - mantissa), offset);
        value = _mm512_mask_permutexvar_epi16(value, small, magnitude, table);
        value = _mm512_mask_add_epi16(value, _mm512_test_epi16_mask(magnitude, magnitude), value, shift);
        if constexpr (has_infinity)
            value = _mm512_mask_mov_epi16(value, _mm512_cmpge_epu16_mask(magnitude, _mm512_set1_epi16(0x7c)),
                                          _mm512_set1_epi16(infinity));
        const int last_number = has_infinity ? 0x7c : 0x7e;
        value = _mm512_mask_mov_epi16(value, _mm512_cmpgt_epu16_mask(magnitude, _mm512_set1_epi16(last_number)),
                                      _mm512_set1_epi16(nan));
        value = _mm512_or_si512(value, _mm512_slli_epi16(_mm512_and_si512(codes, sign), 8));
        _mm512_mask_storeu_epi16(to + i, some, value);
    }
}

bool to_units(const WeightRows& w, const uint8_t* from, int64_t row, int64_t first, int64_t count, Bf16::Unit* units) {
    constexpr int least = 10, largest = 127 + 119;  // codes of powers with which all values remain normal numbers
    auto* to = reinterpret_cast<uint16_t*>(units);
    units[(count - 1) / 2] = 0;
    if (w.type == WeightType::e5m2) {
        to_bfloat<2, 15>(from, count, 0, to);
        return true;
    }
    if (!w.powers) {
        to_bfloat<3, 7>(from, count, 0, to);
        return true;
    }
    for (int64_t i = 0; i < count; i += w.block) {
        const uint8_t code = code_of_block(w, row, first + i);
        if (code < least || code > largest) return false;
        to_bfloat<3, 7>(from + i, w.block, code - 127, to + i);
    }
    return true;
}

#endif

}  // namespace

template <typename P>
bool unpack_fp8(const WeightRows& w, const uint8_t* from, int64_t row, int64_t first, int64_t count, float* floats,
                [[maybe_unused]] typename P::Unit* to) {
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
    if constexpr (P::depth == 2)
        if (to_units(w, from, row, first, count, to)) return true;
#endif
    if (w.type == WeightType::e5m2)
        from_e5m2(from, count, floats);
    else if (w.powers)
        from_mxfp8(w, from, row, first, count, floats);
    else
        from_e4m3(from, count, 256, floats);
    return false;
}

template bool unpack_fp8<F32>(const WeightRows&, const uint8_t*, int64_t, int64_t, int64_t, float*, F32::Unit*);
#if defined(__AVX512BF16__)
template bool unpack_fp8<Bf16>(const WeightRows&, const uint8_t*, int64_t, int64_t, int64_t, float*, Bf16::Unit*);
#endif

}  // namespace sdltx::kernels
