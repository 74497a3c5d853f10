#include "backend.h"

#include <algorithm>
#include <mutex>

#include "ggml-alloc.h"
#include "ggml-cpu.h"
#include "platform.h"

namespace sdltx {

namespace {

struct Log {
    std::mutex mutex;
    LogCallback callback = nullptr;
    void* user = nullptr;
    std::string line;  // ggml hands out lines in pieces
    int level = 0;
};

Log& log_state() {
    static Log state;
    return state;
}

void on_ggml_log(ggml_log_level ggml_level, const char* text, void*) {
    Log& state = log_state();
    std::string line;
    int level;
    {
        std::lock_guard<std::mutex> lock(state.mutex);
        if (ggml_level != GGML_LOG_LEVEL_CONT)
            state.level = ggml_level == GGML_LOG_LEVEL_ERROR ? 40 : ggml_level == GGML_LOG_LEVEL_WARN ? 30 : 10;
        state.line += text;
        if (state.line.empty() || state.line.back() != '\n') return;
        state.line.pop_back();
        line.swap(state.line);
        level = state.level;
    }
    log(level, line);  // no lock is held while foreign code runs
}

std::string lower(std::string s) {
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::tolower(c); });
    return s;
}

bool is_gpu(ggml_backend_dev_t dev) {
    const auto type = ggml_backend_dev_type(dev);
    return type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
}

ggml_backend_dev_t find_device(const std::string& wanted) {
    std::string known;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        const std::string name = ggml_backend_dev_name(dev);
        if (lower(name) == lower(wanted) || (lower(wanted) == "auto" && is_gpu(dev))) return dev;
        known += (known.empty() ? "" : ", ") + lower(name);
    }
    if (lower(wanted) == "auto") return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    throw Error(ErrorCode::backend, "[device] there is no device '" + wanted + "' here; this build sees: " + known);
}

}  // namespace

void set_log(LogCallback callback, void* user) {
    {
        std::lock_guard<std::mutex> lock(log_state().mutex);
        log_state().callback = callback;
        log_state().user = user;
    }
    ggml_log_set(on_ggml_log, nullptr);
}

void log(int level, const std::string& text) {
    LogCallback callback;
    void* user;
    {
        std::lock_guard<std::mutex> lock(log_state().mutex);
        callback = log_state().callback;
        user = log_state().user;
    }
    if (callback) callback(level, text.c_str(), user);
}

Backend::Backend(const std::string& device, bool exact, int threads, Offload offload)
    : exact_(exact), threads_(threads), offload_(offload) {
    for (auto& count : allocated_) count = std::make_shared<std::atomic<size_t>>(0);
    install_last_words();
    ggml_set_abort_callback(last_words);
    if (threads < 0 || threads > GGML_MAX_N_THREADS)
        throw Error(ErrorCode::invalid_request, "[threads] " + std::to_string(threads) +
                                                    " is not between 0 (one per core) and " +
                                                    std::to_string(GGML_MAX_N_THREADS));
    if (threads_ == 0) threads_ = std::min(usable_processors(), GGML_MAX_N_THREADS);
    ggml_backend_dev_t dev = find_device(device);
    if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU) {
        if (exact)
            throw Error(ErrorCode::invalid_request,
                        "[device] precision f32 is exact on the CPU only; use device cpu, or precision auto on '" +
                            device + "'");
        backends_.emplace_back(ggml_backend_dev_init(dev, nullptr));
        if (!backends_.back())
            throw Error(ErrorCode::backend,
                        "[device] '" + device + "' does not start; check its driver, or use device cpu");
    }
    backends_.emplace_back(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_backend_t cpu = backends_.back().get();
    if (!cpu) throw Error(ErrorCode::backend, "[device] the CPU backend does not start");
    ggml_backend_cpu_set_n_threads(cpu, threads_);
    ggml_backend_cpu_set_abort_callback(
        cpu, [](void* self) { return static_cast<const Backend*>(self)->stopped(); }, this);
}

Backend::Poll Backend::exchange_poll(Poll ask) {
    std::swap(poll_, ask);
    return ask;
}

bool Backend::stopped() const {
    if (!poll_) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now < next_poll_) return false;
    next_poll_ = now + std::chrono::milliseconds(50);
    return !poll_();
}

Backend::Computing::Computing(const Backend& backend) : computing_(backend.computing_) {
    if (computing_.exchange(true))
        throw Error(ErrorCode::busy, "[pipeline] a computation is running; start the next one when it is done");
}

void Backend::poll() const {
    const Computing computing(*this);
    if (stopped()) throw Error(ErrorCode::cancelled, "[pipeline] stopped");
}

ggml_status Backend::compute(ggml_backend_sched_t sched, ggml_cgraph* graph,
                             const std::function<void()>& meanwhile) const {
    const Computing computing(*this);
    // However it ends, the device is idle afterwards.
    struct Idle {
        ggml_backend_sched_t sched;
        ~Idle() { ggml_backend_sched_synchronize(sched); }
    } idle{sched};
    if (threads_ > 1) {
        if (forked_without_threads())
            throw Error(ErrorCode::backend,
                        "[pipeline] this process was forked from one that had computed already, and threads do not "
                        "survive a fork; start workers with 'spawn', or use threads=1");
        note_threads_used();
    }
    // Where the host computes it is busy until it is done.
    if (meanwhile && uses_host_memory()) meanwhile();
    const ggml_status status = ggml_backend_sched_graph_compute_async(sched, graph);
    if (meanwhile && !uses_host_memory() && status == GGML_STATUS_SUCCESS) meanwhile();
    return status;
}

std::vector<ggml_backend_t> Backend::backends() const {
    std::vector<ggml_backend_t> all;
    for (auto& b : backends_) all.push_back(b.get());
    return all;
}

std::vector<DeviceInfo> Backend::devices() {
    std::vector<DeviceInfo> out;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        DeviceInfo info;
        info.name = lower(ggml_backend_dev_name(dev));
        info.description = ggml_backend_dev_description(dev);
        const auto type = ggml_backend_dev_type(dev);
        info.kind = type == GGML_BACKEND_DEVICE_TYPE_CPU ? "cpu" : is_gpu(dev) ? "gpu" : "accelerator";
        ggml_backend_dev_memory(dev, &info.memory_free, &info.memory_total);
        out.push_back(info);
    }
    return out;
}

std::string Backend::device_name(size_t i) const {
    return lower(ggml_backend_dev_name(ggml_backend_get_device(backends_[i].get())));
}

size_t Backend::available_memory(size_t i) const {
    if (i + 1 == backends_.size()) return sdltx::available_memory();
    size_t free = 0, total = 0;
    ggml_backend_dev_memory(ggml_backend_get_device(backends_[i].get()), &free, &total);
    return total ? free : SIZE_MAX;
}

ggml_backend_buffer_type_t Backend::buffer_type() const {
    return ggml_backend_get_default_buffer_type(backends_.front().get());
}

Buffer Backend::map_host_memory(const void* data, size_t size) const {
    if (!uses_host_memory()) return nullptr;
    return Buffer(ggml_backend_cpu_buffer_from_ptr(const_cast<void*>(data), size));
}

Buffer Backend::allocate(size_t bytes, Use use, const std::string& what) const {
    const size_t left = available_memory(0);
    Buffer buffer(bytes <= left ? ggml_backend_buft_alloc_buffer(buffer_type(), bytes) : nullptr);
    if (!buffer)
        throw Error(ErrorCode::out_of_memory,
                    "[" + what + "] needs " + std::to_string((bytes >> 20) + 1) + " MiB on " + device_name() + ", " +
                        std::to_string(left >> 20) +
                        " MiB are free; close other programs or use smaller or quantised files");
    buffer.get_deleter().counted = allocated_[static_cast<size_t>(use)];
    *allocated_[static_cast<size_t>(use)] += ggml_backend_buffer_get_size(buffer.get());
    return buffer;
}

std::vector<Buffer> Backend::allocate(const std::vector<ggml_tensor*>& tensors, Use use, const std::string& what,
                                      const Take& take) const {
    const size_t alignment = ggml_backend_buft_get_alignment(buffer_type()),
                 most = ggml_backend_buft_get_max_size(buffer_type());
    const auto bytes_of = [&](const ggml_tensor* t) {
        return GGML_PAD(ggml_backend_buft_get_alloc_size(buffer_type(), t), alignment);
    };
    std::vector<Buffer> buffers;
    for (size_t first = 0, end = 0; first < tensors.size(); first = end) {
        size_t bytes = alignment;  // never nothing
        for (; end < tensors.size(); ++end) {
            const size_t more = bytes_of(tensors[end]);
            if (end > first && bytes + more > most) break;
            bytes += more;
        }
        Buffer buffer = take ? take(bytes) : nullptr;
        if (!buffer) buffer = allocate(bytes, use, what);
        // Operations go where their weights and states are.
        ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        ggml_tallocr place = ggml_tallocr_new(buffer.get());
        for (size_t i = first; i < end; ++i) ggml_tallocr_alloc(&place, tensors[i]);
        buffers.push_back(std::move(buffer));
    }
    return buffers;
}

}  // namespace sdltx
