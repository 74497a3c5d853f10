// The parts of the table; kernels.h says what they do.
#pragma once

#include "kernels.h"

namespace sdltx::kernels {

size_t packed_attention_bytes(const AttentionShape& shape, int threads, bool exact);
void pack_attention(const AttentionShape& shape, HeadRows k, HeadRows v, void* packed, bool exact, Share share);
void attention(const AttentionJob& job, Share share);

}  // namespace sdltx::kernels
