// The kernels of one level.
#include "attention.h"
#include "norm.h"
#include "product.h"
#include "simd.h"
#include "snake.h"
#include "volume.h"

// The instruction sets that these kernels, and ggml's, were compiled for. Data, as none of their code may run where one
// of them is missing.
extern "C" const char sdltx_kernel_features[] =
    ""
#ifdef __SSE3__
    "sse3 "
#endif
#ifdef __SSSE3__
    "ssse3 "
#endif
#ifdef __SSE4_1__
    "sse4.1 "
#endif
#ifdef __SSE4_2__
    "sse4.2 "
#endif
#ifdef __POPCNT__
    "popcnt "
#endif
#ifdef __AVX__
    "avx "
#endif
#ifdef __F16C__
    "f16c "
#endif
#ifdef __FMA__
    "fma "
#endif
#ifdef __BMI__
    "bmi1 "
#endif
#ifdef __BMI2__
    "bmi2 "
#endif
#ifdef __LZCNT__
    "lzcnt "
#endif
#ifdef __AVX2__
    "avx2 "
#endif
#ifdef __AVXVNNI__
    "avx_vnni "
#endif
#ifdef __AVX512F__
    "avx512f "
#endif
#ifdef __AVX512CD__
    "avx512cd "
#endif
#ifdef __AVX512VL__
    "avx512vl "
#endif
#ifdef __AVX512DQ__
    "avx512dq "
#endif
#ifdef __AVX512BW__
    "avx512bw "
#endif
#ifdef __AVX512VBMI__
    "avx512vbmi "
#endif
#ifdef __AVX512VNNI__
    "avx512_vnni "
#endif
#ifdef __AVX512BF16__
    "avx512_bf16 "
#endif
#ifdef __AVX512FP16__
    "avx512_fp16 "
#endif
#ifdef __GFNI__
    "gfni "
#endif
#ifdef __AMX_TILE__
    "amx_tile "
#endif
    ;

extern "C" const sdltx::Kernels* sdltx_kernels(void) {
    using namespace sdltx::kernels;
    static const sdltx::Kernels table = [] {
        sdltx::Kernels k{};
        k.fast = Bf16::depth == 2;
        k.packed_units = packed_units;
        k.pack_rows = pack_rows;
        k.product_scratch = product_scratch;
        k.product = product;
        k.pack_volume = pack_volume;
        k.norm = norm;
        k.gate = gate;
        k.gelu_tanh = gelu_tanh;
        k.snake = snake;
        k.packed_attention_bytes = packed_attention_bytes;
        k.pack_attention = pack_attention;
        k.attention = attention;
        return k;
    }();
    return &table;
}
