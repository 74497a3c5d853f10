// Descriptions of tensors without data, as many as a graph or a network needs.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "ggml.h"

namespace sdltx {

// A growing row of ggml contexts: ggml's own are of a fixed size and end the process when they are full.
class TensorArena {
 public:
    // Room for at least this many tensors in what context() returns.
    static constexpr size_t room = 1024;

    // The context to make the next tensors in. Ask again in every loop. Throws Error(out_of_memory).
    ggml_context* context();
    // All of them, in order.
    std::vector<ggml_context*> contexts() const;

 private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
        void operator()(ggml_context* c) const { ggml_free(c); }
    };
    struct Chunk {
        std::unique_ptr<void, Free> memory;
        std::unique_ptr<ggml_context, Free> context;
    };
    std::vector<Chunk> chunks_;
};

}  // namespace sdltx
