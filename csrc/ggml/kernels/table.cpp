// The kernels of one level.
#include "attention.h"
#include "product.h"
#include "simd.h"

extern "C" const sdltx::Kernels* sdltx_kernels(void) {
    using namespace sdltx::kernels;
    static constexpr sdltx::Kernels table = {Half::depth == 2, packed_units,           pack_rows,      product_scratch,
                                             product,          packed_attention_bytes, pack_attention, attention};
    return &table;
}
