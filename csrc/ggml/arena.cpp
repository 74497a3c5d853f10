#include "arena.h"

#include "base/error.h"

namespace sdltx {

ggml_context* TensorArena::context() {
    const size_t each = ggml_tensor_overhead();
    if (!chunks_.empty()) {
        ggml_context* last = chunks_.back().context.get();
        if (ggml_get_mem_size(last) - ggml_used_mem(last) >= room * each) return last;
    }
    const size_t bytes = (chunks_.empty() ? 2 : 8) * room * each;
    Chunk chunk;
    // ggml asserts that its own allocation succeeds.
    chunk.memory.reset(std::malloc(bytes));
    if (!chunk.memory) throw Error(ErrorCode::out_of_memory, "[ggml] no memory for the description of a graph");
    chunk.context.reset(ggml_init({bytes, chunk.memory.get(), /*no_alloc=*/true}));
    chunks_.push_back(std::move(chunk));
    return chunks_.back().context.get();
}

std::vector<ggml_context*> TensorArena::contexts() const {
    std::vector<ggml_context*> all;
    for (auto& c : chunks_) all.push_back(c.context.get());
    return all;
}

}  // namespace sdltx
