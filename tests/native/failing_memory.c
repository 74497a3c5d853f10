/* Runs what a program does with the library again and again, each time with another allocation that fails, or another
 * thread that does not start: every call has to return a status, and the same objects have to work afterwards.
 *
 * failing_memory WHAT FIRST STRIDE MOST PATH...   WHAT: load, generate or threads
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sdltx.h"

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

/* Counts down to the one that fails; 0: none does. */
static atomic_long left, fired, of_threads;

static int fails(void) {
    if (atomic_load(&left) <= 0 || atomic_load(&of_threads)) return 0;
    if (atomic_fetch_sub(&left, 1) != 1) return 0;
    atomic_store(&fired, 1);
    errno = ENOMEM;
    return 1;
}

void* malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void* calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void* realloc(void* old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
void* memalign(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
void* aligned_alloc(size_t alignment, size_t size) { return fails() ? NULL : __libc_memalign(alignment, size); }
int posix_memalign(void** out, size_t alignment, size_t size) {
    if (fails()) return ENOMEM;
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

typedef int (*create_fn)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
    static create_fn real;
    if (!real) real = (create_fn)dlsym(RTLD_NEXT, "pthread_create");
    if (atomic_load(&of_threads) && atomic_load(&left) > 0 && atomic_fetch_sub(&left, 1) == 1) {
        atomic_store(&fired, 1);
        return EAGAIN;
    }
    return real(thread, attributes, run, argument);
}

static void die(const char* what, long k, sdltx_status status) {
    fprintf(stderr, "%s at %ld: status %d, %s\n", what, k, (int)status, sdltx_last_error());
    exit(1);
}

static uint64_t sum_of(const void* data, size_t size, uint64_t sum) {
    for (size_t i = 0; i < size; ++i) sum = (sum ^ ((const unsigned char*)data)[i]) * 1099511628211u;
    return sum;
}

static sdltx_pipeline* load(const char* const* paths, size_t count, const char* offload, sdltx_status* status) {
    sdltx_load_options options;
    sdltx_pipeline* pipeline = NULL;
    sdltx_load_options_init(&options, SDLTX_LOAD_OPTIONS_VERSION);
    options.threads = 1; /* OpenMP ends the process when it has no memory for its own threads */
    options.offload = strcmp(offload, "blocks") == 0 ? SDLTX_OFFLOAD_BLOCKS : SDLTX_OFFLOAD_STAGE;
    *status = sdltx_load(paths, count, &options, &pipeline);
    return pipeline;
}

/* A tiny clip; the sum of its pixels and samples. */
static sdltx_status generate(sdltx_pipeline* pipeline, uint64_t* sum) {
    sdltx_request* request = NULL;
    sdltx_video* video = NULL;
    sdltx_status status = sdltx_request_new(&request);
    if (status == SDLTX_OK) status = sdltx_request_set_text(request, "prompt", "a red ball");
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "width", 32);
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "height", 32);
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "num_frames", 9);
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "num_inference_steps", 1);
    if (status == SDLTX_OK) status = sdltx_request_set_int(request, "seed", 1);
    if (status == SDLTX_OK)
        status = sdltx_generate(pipeline, request, SDLTX_PICTURES | SDLTX_SOUND, NULL, NULL, &video);
    if (status == SDLTX_OK) {
        sdltx_frames frames;
        sdltx_sound sound;
        if ((status = sdltx_video_frames(video, &frames)) == SDLTX_OK &&
            (status = sdltx_video_sound(video, &sound)) == SDLTX_OK) {
            *sum = sum_of(frames.rgb, (size_t)(frames.num_frames * frames.height * frames.width * 3), 1469598103934665603u);
            *sum = sum_of(sound.samples, (size_t)(sound.channels * sound.num_samples) * sizeof(float), *sum);
        }
    }
    sdltx_video_free(video);
    sdltx_request_free(request);
    return status;
}

int main(int argc, char** argv) {
    if (argc < 6) return 2;
    const char* what = argv[1];
    const long first = atol(argv[2]), stride = atol(argv[3]), most = atol(argv[4]);
    const char* const* paths = (const char* const*)argv + 5;
    const size_t count = (size_t)(argc - 5);
    const int loads = strcmp(what, "load") == 0, threads = strcmp(what, "threads") == 0;
    sdltx_status status;
    uint64_t expected = 0, sum = 0;
    long failed = 0, survived = 0, k;
    sdltx_pipeline* pipeline = load(paths, count, threads ? "blocks" : "stage", &status);
    if (status != SDLTX_OK) die("the first load", 0, status);
    if ((status = generate(pipeline, &expected)) != SDLTX_OK) die("the first clip", 0, status);
    for (k = first; failed + survived < most; k += stride) {
        sdltx_pipeline* other = NULL;
        atomic_store(&fired, 0);
        atomic_store(&of_threads, threads);
        atomic_store(&left, k);
        if (loads)
            other = load(paths, count, "stage", &status);
        else
            status = generate(pipeline, &sum);
        atomic_store(&left, 0);
        if (!atomic_load(&fired)) break;
        if (status == SDLTX_OK) {
            ++survived; /* what failed was not needed */
            if (!loads && sum != expected) die("another clip", k, status);
        } else {
            ++failed;
            if (status != SDLTX_ERROR_OUT_OF_MEMORY) die("another error", k, status);
            if (!sdltx_last_error()) die("no line", k, status);
        }
        sdltx_pipeline_free(other);
        if ((failed + survived) % 16 == 0 && ((status = generate(pipeline, &sum)) != SDLTX_OK || sum != expected))
            die("the clip afterwards", k, status);
    }
    if ((status = generate(pipeline, &sum)) != SDLTX_OK || sum != expected) die("the last clip", k, status);
    sdltx_pipeline_free(pipeline);
    printf("%ld failed, %ld survived, the last at %ld\n", failed, survived, k);
    return 0;
}
