// Devices, the memory they hand out, and the arithmetic that a run may use. The only file that knows which backends
// exist.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "error.h"
#include "ggml-backend.h"
#include "ggml.h"

namespace sdltx {

struct DeviceInfo {
    std::string name;         // as `device=` takes it: "cpu", "CUDA0", ...
    std::string description;  // the vendor's name
    std::string kind;         // "cpu", "gpu" or "accelerator"
    size_t memory_free = 0;   // bytes
    size_t memory_total = 0;  // bytes
};

struct BufferDeleter {
    void operator()(ggml_backend_buffer_t b) const { ggml_backend_buffer_free(b); }
};
using Buffer = std::unique_ptr<ggml_backend_buffer, BufferDeleter>;

struct ContextDeleter {
    void operator()(ggml_context* c) const { ggml_free(c); }
};
using TensorContext = std::unique_ptr<ggml_context, ContextDeleter>;

class Backend {
 public:
    // device: a name of devices(), any case, or "auto" for the first GPU if there is one.
    // exact: every operation in float32, whatever the type of the stored weights; on the CPU only, as GPU libraries
    // round to less than float32 on their own.
    // threads: of the CPU backend; 0 = one per physical core that this process may use.
    // Throws Error(backend) or Error(invalid_request).
    Backend(const std::string& device, bool exact, int threads);

    static std::vector<DeviceInfo> devices();

    bool exact() const { return exact_; }
    // Whether the device computes on memory of the host: mapped files are its weights then.
    bool uses_host_memory() const { return backends_.size() == 1; }
    int threads() const { return threads_; }
    // Of the device, or of backends()[i].
    std::string device_name(size_t i = 0) const;

    // In order of preference; the CPU is last.
    std::vector<ggml_backend_t> backends() const;
    // Bytes that backends()[i] can still allocate.
    size_t available_memory(size_t i) const;

    // Runs an allocated graph. Throws Error(busy) when called while one runs, and Error(backend) in a forked child that
    // has lost its threads.
    ggml_status compute(ggml_backend_sched_t sched, ggml_cgraph* graph) const;
    // Between operations of a running graph, on the thread that runs it, at most every 50 ms, `ask` is called; false
    // stops the run. Returns what was asked before, to be set again.
    using Poll = std::function<bool()>;
    Poll exchange_poll(Poll ask);

    // Where weights and graph inputs live.
    ggml_backend_buffer_type_t buffer_type() const;
    // Device memory over bytes of the host, or null when the device cannot use them in place.
    Buffer map_host_memory(const void* data, size_t size) const;
    // Memory for all tensors of `arena`. Throws Error(out_of_memory) naming `what`.
    std::vector<Buffer> allocate(const TensorArena& arena, const std::string& what) const;

 private:
    struct BackendDeleter {
        void operator()(ggml_backend_t b) const { ggml_backend_free(b); }
    };
    static bool should_abort(void* self);

    Poll poll_;
    std::chrono::steady_clock::time_point next_poll_{};
    mutable std::atomic<bool> computing_{false};
    std::vector<std::unique_ptr<ggml_backend, BackendDeleter>> backends_;
    bool exact_;
    int threads_;
};

// Log lines of ggml and of this library; level is Python's logging level (10 debug ... 40 error). Process wide, as
// ggml's is.
using LogCallback = void (*)(int level, const char* text, void* user);
void set_log(LogCallback callback, void* user);
void log(int level, const std::string& text);

}  // namespace sdltx
