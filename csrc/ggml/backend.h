// Devices, the memory they hand out, and the arithmetic that a run may use. The only file that knows which backends
// exist.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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

// A ggml context that holds descriptions of up to `tensors` tensors and no data.
TensorContext make_tensor_context(size_t tensors);

class Backend {
 public:
    // device: a name of devices(), any case, or "auto" for the first GPU if there is one.
    // exact: every operation in float32, whatever the type of the stored weights.
    // threads: of the CPU backend; 0 = one per core. Throws Error(backend) or Error(invalid_request).
    Backend(const std::string& device, bool exact, int threads);
    ~Backend();
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    static std::vector<DeviceInfo> devices();

    bool exact() const { return exact_; }
    bool is_cpu() const { return backends_.size() == 1; }
    int threads() const { return threads_; }
    std::string device_name() const;

    // In order of preference; the CPU is last.
    const std::vector<ggml_backend_t>& backends() const { return backends_; }
    // Called between operations of a running graph, on the thread that runs it, at most every 50 ms; false stops the
    // run.
    void set_poll(std::function<bool()> poll) { poll_.ask = std::move(poll); }

    // Where weights and graph inputs live.
    ggml_backend_buffer_type_t buffer_type() const;
    // Device memory over bytes of the host, or null when the device cannot use them in place.
    Buffer map_host_memory(const void* data, size_t size) const;
    // Memory for all tensors of `ctx`. Throws Error(out_of_memory) naming `what`.
    Buffer allocate(ggml_context* ctx, const std::string& what) const;

 private:
    struct Poll {
        std::function<bool()> ask;
        std::chrono::steady_clock::time_point next{};
    };
    static bool should_abort(void* poll);

    Poll poll_;
    std::vector<ggml_backend_t> backends_;
    bool exact_;
    int threads_;
};

// Log lines of ggml and of this library; level is Python's logging level (10 debug ... 40 error). Process wide, as
// ggml's is.
using LogCallback = void (*)(int level, const char* text, void* user);
void set_log(LogCallback callback, void* user);
void log(int level, const std::string& text);

}  // namespace sdltx
