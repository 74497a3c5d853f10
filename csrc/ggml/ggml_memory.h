// Included before each source of ggml's base, which does not look at what most of its allocations return: here they
// throw std::bad_alloc, through C as well. What was given back before is forgotten, as its owner is given back after
// the exception.
#pragma once

#ifdef __cplusplus
#include <cstdlib>

#include "ggml.h"
extern "C" {
#else
#include <stdlib.h>
#endif

void* sdltx_ggml_malloc(size_t size);
void* sdltx_ggml_calloc(size_t count, size_t size);
void* sdltx_ggml_realloc(void* old, size_t size);

#ifdef __cplusplus
}
// A scheduler gives its context back before it makes another one.
#define ggml_free(context) (ggml_free(context), (void)((context) = nullptr))
#else
#define free(pointer) (free(pointer), (void)((pointer) = NULL))
#endif

#define malloc(size) sdltx_ggml_malloc(size)
#define calloc(count, size) sdltx_ggml_calloc(count, size)
#define realloc(old, size) sdltx_ggml_realloc(old, size)
