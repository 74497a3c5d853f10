#include <cstdlib>
#include <new>

extern "C" {
void* sdltx_ggml_malloc(size_t size);
void* sdltx_ggml_calloc(size_t count, size_t size);
void* sdltx_ggml_realloc(void* old, size_t size);
}

namespace {

void* there(void* memory) {
    if (!memory) throw std::bad_alloc();
    return memory;
}

}  // namespace

// Nothing is a byte, so that null always is a failure.
void* sdltx_ggml_malloc(size_t size) { return there(std::malloc(size ? size : 1)); }
void* sdltx_ggml_calloc(size_t count, size_t size) { return there(std::calloc(count ? count : 1, size ? size : 1)); }
void* sdltx_ggml_realloc(void* old, size_t size) { return there(std::realloc(old, size ? size : 1)); }
