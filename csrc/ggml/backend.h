// Devices, the memory they hand out, and the arithmetic and the policy of a run. The only file that knows which
// backends exist.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/export.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "lost_worker.h"
#include "uploads.h"

namespace sdltx {

struct DeviceInfo {
    std::string name;         // as `device=` takes it: "cpu", "CUDA0", ...
    std::string description;  // the vendor's name
    std::string kind;         // "cpu", "gpu", "remote" or "accelerator"
    size_t memory_free = 0;   // bytes
    size_t memory_total = 0;  // bytes
};

// A library of kernels that is built in.
struct BackendInfo {
    std::string name;                                           // "CPU", "CUDA", "RPC", ...
    std::vector<std::pair<std::string, std::string>> features;  // what its kernels use, and a value: ("AVX2", "1")
};

// Memory on a device; it is counted as long as it is held.
struct BufferDeleter {
    std::shared_ptr<std::atomic<size_t>> counted;
    void operator()(ggml_backend_buffer_t b) const {
        if (counted) *counted -= ggml_backend_buffer_get_size(b);
        give_back(b, ggml_backend_buffer_free);
    }
};
using Buffer = std::unique_ptr<ggml_backend_buffer, BufferDeleter>;

struct ContextDeleter {
    void operator()(ggml_context* c) const { ggml_free(c); }
};
using TensorContext = std::unique_ptr<ggml_context, ContextDeleter>;

// How long weights stay where they were brought: until the pipeline is closed, for one stage of a run (encoding,
// denoising, decoding), or for one block of a network where it has blocks; automatic: as long as there is room for
// them.
enum class Offload { none, stage, blocks, automatic };

// GiB that may be taken at most of the host, and of each device; negative: that are left free; 0: no limit.
struct MemoryLimits {
    double host = 0, device = 0;
};

class SDLTX_EXPORT Backend {
 public:
    // device: a name of devices(), any case, "auto" for the best GPU if there is one with enough memory, or
    // "rpc:HOST:PORT" for the devices of a worker (worker.h); several, separated by commas, share the blocks of a
    // network among them. exact: every operation in float32, whatever the type of the stored weights; on CPUs only,
    // also on a worker's, as GPU libraries round to less than float32 on their own. threads: of the CPU backend; 0 =
    // one per physical core that this process may use. Throws Error(backend) or Error(invalid_request).
    Backend(const std::string& device, bool exact, int threads, Offload offload = Offload::none,
            MemoryLimits limits = {});

    static std::vector<DeviceInfo> devices();
    static std::vector<BackendInfo> built_in();
    static std::string ggml_version();

    bool exact() const { return exact_; }
    Offload offload() const { return offload_; }
    // Whether plans run on memory of the host: mapped files are their weights then.
    bool uses_host_memory() const { return backends_.size() == 1; }
    // Whether backends()[device] can compute `node` itself.
    bool can(size_t device, const ggml_tensor* node) const;
    int threads() const { return threads_; }
    // Whether backends()[i] is a GPU of this machine.
    bool is_gpu(size_t i) const;
    // What attention on backends()[i] gets keys and values as.
    ggml_type keys_type(size_t i) const;
    // Whether a device is that of a worker.
    bool remote() const { return !workers_.empty(); }
    // Whether a device multiplies in half precision, also floats, and sums so unless it is told not to.
    bool multiplies_halves() const { return multiplies_halves_; }
    // Of backends()[i], and of all that compute.
    std::string device_name(size_t i = 0) const;
    std::string device_names() const;

    // The devices, and after them, unless it is the device, the CPU for what they cannot do.
    std::vector<ggml_backend_t> backends() const;
    // How many of the backends hold weights, and which of them those of block i of n.
    size_t num_devices() const { return uses_host_memory() ? 1 : backends_.size() - 1; }
    size_t device_of(size_t block, size_t blocks) const { return block * num_devices() / blocks; }
    // Bytes that backends()[i] can still allocate, within the limits. Of the host the file cache counts as free.
    size_t available_memory(size_t i) const;
    // Bytes that each of the backends is said to have, for tests; empty: as it is.
    void pretend_memory(std::vector<size_t> bytes) { pretended_ = std::move(bytes); }
    // For who computes: what it holds on each of the backends, which counts for the limits.
    void note_working(const std::vector<size_t>& bytes) const;

    // Runs an allocated graph and waits for it; `meanwhile`, unless empty, is called while the device is at work, or
    // before it where the host computes itself. Throws Error(busy) when called while one runs, and Error(backend) in a
    // forked child that has lost its threads.
    ggml_status compute(ggml_backend_sched_t sched, ggml_cgraph* graph, const std::function<void()>& meanwhile) const;
    // `ask` is called on the thread that runs a plan, before it and between its operations, at most every 50 ms; false
    // stops the run. Returns what was asked before, to be set again.
    using Poll = std::function<bool()>;
    Poll exchange_poll(Poll ask);
    bool computing() const { return computing_; }
    // Multiply-adds that an operation may take, so that a second is enough to stop a run; see pieces.h.
    int64_t patience() const { return patience_; }
    void set_patience(int64_t multiply_adds) {
        patience_ = multiply_adds;
        speed_ = static_cast<double>(multiply_adds);
    }
    // Asks. Throws Error(cancelled), and Error(busy) when it is called by what it asks.
    void poll() const;

    // Where weights live, and on the first device states.
    ggml_backend_buffer_type_t buffer_type(size_t device = 0) const;
    // The way of large values to devices.
    Uploads& uploads() const { return uploads_; }
    // Device memory over bytes of the host, or null when the device cannot use them in place.
    Buffer map_host_memory(const void* data, size_t size) const;
    enum class Use { weights, state };
    // Memory on backends()[device] for `tensors`, in as few pieces as it allows. `take`, unless empty, is asked for
    // each piece first; what it gives may be larger. Throws Error(out_of_memory) naming `what`.
    using Take = std::function<Buffer(size_t bytes)>;
    std::vector<Buffer> allocate(const std::vector<ggml_tensor*>& tensors, Use use, size_t device,
                                 const std::string& what, const Take& take = {}) const;
    // Bytes that allocate() has given out on backends()[device] and that are still held.
    size_t allocated(Use use, size_t device) const { return *allocated_[device][static_cast<size_t>(use)]; }

 private:
    struct BackendDeleter {
        void operator()(ggml_backend_t b) const { give_back(b, ggml_backend_free); }
    };
    // One at a time.
    class Computing {
     public:
        explicit Computing(const Backend& backend);
        ~Computing() { computing_ = false; }
        Computing(const Computing&) = delete;
        Computing& operator=(const Computing&) = delete;

     private:
        std::atomic<bool>& computing_;
    };
    bool stopped() const;
    // compute() of what takes longer than other devices may be left alone with: operations for some time, a question,
    // and so on.
    ggml_status compute_in_turns(ggml_backend_sched_t sched, ggml_cgraph* graph) const;
    Buffer allocate(size_t bytes, Use use, size_t device, const std::string& what) const;

    std::vector<std::shared_ptr<void>> workers_;  // reserved
    Poll poll_;
    mutable std::chrono::steady_clock::time_point next_poll_{};
    std::vector<std::array<std::shared_ptr<std::atomic<size_t>>, 2>> allocated_;
    mutable std::atomic<bool> computing_{false};
    std::vector<std::unique_ptr<ggml_backend, BackendDeleter>> backends_;
    std::vector<Buffer> connections_;
    mutable Uploads uploads_;  // goes before the devices
    bool multiplies_halves_ = false;
    bool exact_;
    int threads_;
    Offload offload_;
    MemoryLimits limits_;
    mutable std::mutex working_mutex_;     // a stream asks while another thread computes
    mutable std::vector<size_t> working_;  // of the last note
    std::vector<size_t> pretended_;
    int64_t patience_;
    mutable double speed_;  // multiply-adds per second that have been seen where the host does not compute
};

// From now on what ggml says goes to log(), not to the standard error of the process.
SDLTX_EXPORT void take_ggml_log();

}  // namespace sdltx
