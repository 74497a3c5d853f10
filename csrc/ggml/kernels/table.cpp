// The kernels of one level.
#include "attention.h"
#include "norm.h"
#include "product.h"
#include "simd.h"
#include "snake.h"
#include "volume.h"

extern "C" const sdltx::Kernels* sdltx_kernels(void) {
    using namespace sdltx::kernels;
    static const sdltx::Kernels table = [] {
        sdltx::Kernels k{};
        k.fast = Half::depth == 2;
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
