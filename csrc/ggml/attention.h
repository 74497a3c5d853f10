// Attention of many heads. Shapes in ggml order (fastest axis first); T = queries, S = keys.
#pragma once

#include "plan.h"

namespace sdltx {

// What is added to the scores of every head where some tokens count less for others: row which[t] for query t, and
// own[t] for the first `count` keys of it. Few rows say what a whole mask says.
struct AttentionBias {
    ggml_tensor *rows = nullptr, *which = nullptr, *own = nullptr;  // F32 [S, R], I32 [T], F32 [T]
    int64_t count = 0;
    ggml_tensor* mask = nullptr;  // the same as F16 [S, T], where rows cannot be read; see has_own_attention()
};

// Whether heads of this width are computed by our own kernel.
bool has_own_attention(const Backend& backend, int64_t head_dim);

// softmax(q k^T * scale + mask) v per head. q [head_dim, H, T], k and v [head_dim, Hkv, S], H a multiple of Hkv; mask
// F16 [S, T] or null. Result [head_dim, H, T]. Products of float32 if `exact`, as with weights of that type, and in
// exact runs, otherwise of what the device is fastest with; sums of float32 on the CPU.
ggml_tensor* attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale,
                       bool exact);
ggml_tensor* attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, const AttentionBias& bias, float scale,
                       bool exact);

// The same from ggml's operations: its own kernel, or plain ones with all scores [S, T, H] in memory where a device has
// no kernel.
ggml_tensor* device_attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale);
ggml_tensor* softmax_attention(Plan& g, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask, float scale);

}  // namespace sdltx
