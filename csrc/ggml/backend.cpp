#include "backend.h"

#include <algorithm>
#include <mutex>
#include <thread>

#include "ggml-cpu.h"

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
    std::lock_guard<std::mutex> lock(state.mutex);
    if (ggml_level != GGML_LOG_LEVEL_CONT)
        state.level = ggml_level == GGML_LOG_LEVEL_ERROR ? 40 : ggml_level == GGML_LOG_LEVEL_WARN ? 30 : 10;
    state.line += text;
    if (state.line.empty() || state.line.back() != '\n') return;
    state.line.pop_back();
    if (state.callback) state.callback(state.level, state.line.c_str(), state.user);
    state.line.clear();
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

TensorContext make_tensor_context(size_t tensors) {
    TensorContext ctx(ggml_init({(tensors + 16) * ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}));
    if (!ctx) throw Error(ErrorCode::out_of_memory, "[ggml] no memory for a tensor context");
    return ctx;
}

Backend::Backend(const std::string& device, bool exact, int threads) : exact_(exact), threads_(threads) {
    if (threads < 0 || threads > GGML_MAX_N_THREADS)
        throw Error(ErrorCode::invalid_request, "[threads] " + std::to_string(threads) +
                                                    " is not between 0 (one per core) and " +
                                                    std::to_string(GGML_MAX_N_THREADS));
    if (threads_ == 0)
        threads_ = static_cast<int>(std::clamp<unsigned>(std::thread::hardware_concurrency(), 1, GGML_MAX_N_THREADS));
    ggml_backend_dev_t dev = find_device(device);
    if (ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU) {
        ggml_backend_t gpu = ggml_backend_dev_init(dev, nullptr);
        if (!gpu)
            throw Error(ErrorCode::backend,
                        "[device] '" + device + "' does not start; check its driver, or use device cpu");
        backends_.push_back(gpu);
    }
    ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    if (!cpu) throw Error(ErrorCode::backend, "[device] the CPU backend does not start");
    ggml_backend_cpu_set_n_threads(cpu, threads_);
    ggml_backend_cpu_set_abort_callback(cpu, should_abort, &poll_);
    backends_.push_back(cpu);
}

bool Backend::should_abort(void* data) {
    Poll& poll = *static_cast<Poll*>(data);
    if (!poll.ask) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now < poll.next) return false;
    poll.next = now + std::chrono::milliseconds(50);
    return !poll.ask();
}

Backend::~Backend() {
    for (ggml_backend_t b : backends_) ggml_backend_free(b);
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

std::string Backend::device_name() const {
    return lower(ggml_backend_dev_name(ggml_backend_get_device(backends_.front())));
}

ggml_backend_buffer_type_t Backend::buffer_type() const {
    return ggml_backend_get_default_buffer_type(backends_.front());
}

Buffer Backend::map_host_memory(const void* data, size_t size) const {
    if (!is_cpu()) return nullptr;
    return Buffer(ggml_backend_cpu_buffer_from_ptr(const_cast<void*>(data), size));
}

Buffer Backend::allocate(ggml_context* ctx, const std::string& what) const {
    if (!ggml_get_first_tensor(ctx)) return nullptr;
    Buffer buffer(ggml_backend_alloc_ctx_tensors_from_buft(ctx, buffer_type()));
    if (!buffer) {
        size_t bytes = 0;
        for (ggml_tensor* t = ggml_get_first_tensor(ctx); t; t = ggml_get_next_tensor(ctx, t)) bytes += ggml_nbytes(t);
        if (bytes == 0) return nullptr;
        throw Error(ErrorCode::out_of_memory,
                    "[" + what + "] " + std::to_string((bytes >> 20) + 1) + " MiB on " + device_name() +
                        " are not available; close other programs or use smaller or quantised files");
    }
    return buffer;
}

}  // namespace sdltx
