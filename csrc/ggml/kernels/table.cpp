// The kernels of one level.
#include "attention.h"

extern "C" const sdltx::Kernels* sdltx_kernels(void) {
    using namespace sdltx::kernels;
    static constexpr sdltx::Kernels table = {packed_attention_bytes, pack_attention, attention};
    return &table;
}
