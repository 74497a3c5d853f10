#include "backend.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "base/log.h"
#include "base/platform.h"
#include "cpu_kernels.h"
#include "devices.h"
#include "ggml-alloc.h"
#include "worker.h"

namespace sdltx {

namespace {

void on_ggml_log(ggml_log_level ggml_level, const char* text, void*) {
    // Lines are handed out in pieces, by each thread its own.
    thread_local std::string begun;
    thread_local int level = 10;
    if (ggml_level != GGML_LOG_LEVEL_CONT)
        level = ggml_level == GGML_LOG_LEVEL_ERROR ? 40 : ggml_level == GGML_LOG_LEVEL_WARN ? 30 : 10;
    begun += text;
    if (begun.empty() || begun.back() != '\n') return;
    begun.pop_back();
    const std::string line = std::move(begun);
    begun.clear();
    log(level, line);
}

// A function that only the CPU has, of the kernels that were chosen.
template <typename F>
F cpu_procedure(const char* name) {
    return reinterpret_cast<F>(ggml_backend_reg_get_proc_address(cpu_kernels().reg(), name));
}

}  // namespace

void take_ggml_log() { ggml_log_set(on_ggml_log, nullptr); }

// ggml ends the process where something is not as it expects. On a thread that somebody called us with, that call fails
// instead; on others, such as those that compute, the process says its last words.
static void on_assertion(const char* message) {
    if (Inside::this_thread() && std::uncaught_exceptions() == 0)
        throw Error(ErrorCode::backend, std::string("[device] ggml expected something else (") + message +
                                            "); please report this with the command that led to it");
    last_words(message);
}

Backend::Backend(const std::string& device, bool exact, int threads, Offload offload, MemoryLimits limits)
    : exact_(exact), threads_(threads), offload_(offload), limits_(limits) {
    constexpr double most = 1 << 20;
    for (const double gib : {limits.host, limits.device})
        if (!(gib >= -most && gib <= most))
            throw Error(ErrorCode::invalid_request,
                        "[load] a limit of memory is in GiB, from -1048576 to 1048576; negative: that much stays free");
    take_ggml_log();
    ggml_set_abort_callback(on_assertion);
    if (threads < 0 || threads > GGML_MAX_N_THREADS)
        throw Error(ErrorCode::invalid_request, "[threads] " + std::to_string(threads) +
                                                    " is not between 0 (one per core) and " +
                                                    std::to_string(GGML_MAX_N_THREADS));
    if (threads_ == 0) threads_ = std::min(usable_processors(), GGML_MAX_N_THREADS);
    cpu_kernels();  // throws
    const WholeSystemCalls for_worker;
    for (ggml_backend_dev_t dev : find_all_devices(device, workers_)) {
        if (is_cpu(dev)) break;
        if (exact && !is_remote(dev))
            throw Error(ErrorCode::invalid_request,
                        "[device] precision f32 is exact on the CPU only; use device cpu, or precision auto on '" +
                            name_of(dev) + "'");
        backends_.emplace_back(ggml_backend_dev_init(dev, nullptr));
        if (!backends_.back())
            throw Error(ErrorCode::backend,
                        "[device] '" + name_of(dev) + "' does not start; check its driver, or use device cpu");
        multiplies_halves_ = multiplies_halves_ || is_vulkan(dev);
        // A connection lasts as long as something on the other side is held; nobody else gets in between then.
        if (is_remote(dev)) connections_.emplace_back(ggml_backend_alloc_buffer(backends_.back().get(), 1));
    }
    backends_.emplace_back(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    ggml_backend_t cpu = backends_.back().get();
    if (!cpu) throw Error(ErrorCode::backend, "[device] the CPU backend does not start");
    allocated_.resize(backends_.size());
    for (auto& of_device : allocated_)
        for (auto& count : of_device) count = std::make_shared<std::atomic<size_t>>(0);
    // Half a second of a slow core, of a small machine that serves as a worker, and of a small GPU.
    patience_ = uses_host_memory() ? int64_t{threads_} << 32 : remote() ? int64_t{1} << 35 : int64_t{1} << 41;
    speed_ = static_cast<double>(patience_);
    const auto set_threads = cpu_procedure<ggml_backend_set_n_threads_t>("ggml_backend_set_n_threads");
    set_threads(cpu, threads_);
    const auto set_abort = cpu_procedure<ggml_backend_set_abort_callback_t>("ggml_backend_set_abort_callback");
    set_abort(cpu, [](void* self) { return static_cast<const Backend*>(self)->stopped(); }, this);
    // ggml's list of further kinds of buffers is made when it is asked for first, and looked at by every operation.
    cpu_procedure<ggml_backend_dev_get_extra_bufts_t>("ggml_backend_dev_get_extra_bufts")(ggml_backend_get_device(cpu));
    wait_for_threads_at_exit();
}

Backend::Poll Backend::exchange_poll(Poll ask) {
    std::swap(poll_, ask);
    return ask;
}

bool Backend::stopped() const {
    if (process_ends()) return true;
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

namespace {

double work_of(const ggml_tensor* node) {
    const double n = static_cast<double>(ggml_nelements(node));
    if (node->op == GGML_OP_MUL_MAT) return n * static_cast<double>(node->src[0]->ne[0]);
    if (node->op == GGML_OP_FLASH_ATTN_EXT) return 2 * n * static_cast<double>(node->src[1]->ne[1]);
    return n;
}

double work_of(ggml_cgraph* graph) {
    double work = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) work += work_of(ggml_graph_node(graph, i));
    return work;
}

}  // namespace

ggml_status Backend::compute_in_turns(ggml_backend_sched_t sched, ggml_cgraph* graph) const {
    using Clock = std::chrono::steady_clock;
    struct Turn {
        const Backend& backend;
        double work = 0;
        Clock::time_point start = Clock::now();
        bool stopped = false;

        // Is asked before each operation whether its result is wanted, and told when what was wanted is there.
        bool operator()(const ggml_tensor* node, bool before) {
            if (stopped) return before;  // of further splits nothing is wanted, and what follows each ends it
            if (before) {
                work += work_of(node);
                return work >= 0.3 * backend.speed_;
            }
            char byte;  // a worker is done when it answers
            ggml_backend_tensor_get(node, &byte, 0, sizeof(byte));
            const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
            backend.speed_ = std::max(backend.speed_, work / std::max(seconds, 1e-3));
            work = 0;
            start = Clock::now();
            stopped = backend.stopped();
            return !stopped;
        }
    } turn{*this};
    const auto callback = [](ggml_tensor* node, bool before, void* data) {
        return (*static_cast<Turn*>(data))(node, before);
    };
    ggml_backend_sched_set_eval_callback(sched, callback, &turn);
    const ggml_status status = ggml_backend_sched_graph_compute(sched, graph);
    ggml_backend_sched_set_eval_callback(sched, nullptr, nullptr);
    return turn.stopped ? GGML_STATUS_ABORTED : status;
}

ggml_status Backend::compute(ggml_backend_sched_t sched, ggml_cgraph* graph,
                             const std::function<void()>& meanwhile) const {
    const Computing computing(*this);
    // However it ends, the device is idle afterwards.
    struct Idle {
        ggml_backend_sched_t sched;
        ~Idle() { give_back(sched, ggml_backend_sched_synchronize); }
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
    const bool in_turns = poll_ && !uses_host_memory() && work_of(graph) > 0.5 * speed_;
    ggml_status status;
    try {
        status = in_turns ? compute_in_turns(sched, graph) : ggml_backend_sched_graph_compute_async(sched, graph);
    } catch (const std::exception& e) {
        if (const auto known = device_error(e)) throw *known;
        throw;
    }
    if (meanwhile && !uses_host_memory() && status == GGML_STATUS_SUCCESS) meanwhile();
    return status;
}

std::vector<ggml_backend_t> Backend::backends() const {
    std::vector<ggml_backend_t> all;
    for (auto& b : backends_) all.push_back(b.get());
    return all;
}

std::vector<DeviceInfo> Backend::devices() {
    take_ggml_log();
    cpu_kernels();  // throws
    look_for_gpus();
    std::vector<DeviceInfo> out;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        DeviceInfo info;
        info.name = name_of(dev);
        info.description = ggml_backend_dev_description(dev);
        info.kind = kind_of(dev);
        ggml_backend_dev_memory(dev, &info.memory_free, &info.memory_total);
        if (is_cpu(dev)) info.memory_free = std::min(info.memory_free, sdltx::available_memory());
        out.push_back(info);
    }
    return out;
}

std::vector<BackendInfo> Backend::built_in() {
    cpu_kernels();  // throws
    look_for_gpus();
    std::vector<BackendInfo> out;
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        ggml_backend_reg_t reg = ggml_backend_reg_get(i);
        BackendInfo info{ggml_backend_reg_name(reg), {}};
        const auto features = reinterpret_cast<ggml_backend_get_features_t>(
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
        if (features)
            for (const ggml_backend_feature* f = features(reg); f->name; ++f)
                info.features.emplace_back(f->name, f->value);
        out.push_back(std::move(info));
    }
    if (vulkan_is_built_in() && !vulkan_problem().empty()) out.push_back({"Vulkan", {{"problem", vulkan_problem()}}});
    return out;
}

std::string Backend::ggml_version() { return ::ggml_version(); }

std::string Backend::device_name(size_t i) const { return name_of(ggml_backend_get_device(backends_[i].get())); }

std::string Backend::device_names() const {
    std::string names;
    for (size_t i = 0; i < num_devices(); ++i) names += (i ? "," : "") + device_name(i);
    return names;
}

// ggml's CPU kernel, which is that of many workers, would keep sums over the keys of few queries as halves for F16.
ggml_type Backend::keys_type(size_t i) const {
    return is_gpu(i) ? keys_type_of(ggml_backend_get_device(backends_[i].get())) : GGML_TYPE_F32;
}

bool Backend::is_gpu(size_t i) const { return kind_of(ggml_backend_get_device(backends_[i].get())) == "gpu"; }

bool Backend::can(size_t device, const ggml_tensor* node) const {
    return ggml_backend_supports_op(backends_[device].get(), node);
}

namespace {

// What is left of `free` bytes by a limit, when `taken` are ours already.
size_t within(double limit, size_t free, size_t taken) {
    if (limit == 0) return free;
    const auto bytes = static_cast<size_t>(std::abs(limit) * static_cast<double>(size_t{1} << 30));
    if (limit < 0) return free == SIZE_MAX ? free : free - std::min(free, bytes);
    return std::min(free, bytes - std::min(bytes, taken));
}

}  // namespace

size_t Backend::available_memory(size_t i) const {
    if (i < pretended_.size())
        return pretended_[i] - std::min(pretended_[i], allocated(Use::weights, i) + allocated(Use::state, i));
    if (i + 1 == backends_.size())
        return within(limits_.host, sdltx::available_memory(), limits_.host > 0 ? own_memory() : 0);
    size_t free = 0, total = 0;
    ggml_backend_dev_t device = ggml_backend_get_device(backends_[i].get());
    ggml_backend_dev_memory(device, &free, &total);
    // Vulkan's sum has the window through which the host sees a card's memory as if it came on top.
    constexpr size_t window = size_t{256} << 20;
    if (is_vulkan(device) && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU && total > 8 * window)
        free -= std::min(free, window);
    size_t working = 0;
    {
        const std::lock_guard<std::mutex> lock(working_mutex_);
        if (i < working_.size()) working = working_[i];
    }
    return within(limits_.device, total ? free : SIZE_MAX,
                  allocated(Use::weights, i) + allocated(Use::state, i) + working);
}

void Backend::note_working(const std::vector<size_t>& bytes) const {
    const std::lock_guard<std::mutex> lock(working_mutex_);
    working_ = bytes;
}

ggml_backend_buffer_type_t Backend::buffer_type(size_t device) const {
    return ggml_backend_get_default_buffer_type(backends_[device].get());
}

Buffer Backend::map_host_memory(const void* data, size_t size) const {
    if (!uses_host_memory()) return nullptr;
    return Buffer(ggml_backend_cpu_buffer_from_ptr(const_cast<void*>(data), size));
}

Buffer Backend::allocate(size_t bytes, Use use, size_t device, const std::string& what) const {
    const size_t left = available_memory(device);
    Buffer buffer(bytes <= left ? ggml_backend_buft_alloc_buffer(buffer_type(device), bytes) : nullptr);
    if (!buffer)
        throw Error(ErrorCode::out_of_memory,
                    "[" + what + "] needs " + std::to_string((bytes >> 20) + 1) + " MiB on " + device_name(device) +
                        ", " + std::to_string(left >> 20) +
                        " MiB are free; use offload blocks, close other programs, or use smaller files");
    buffer.get_deleter().counted = allocated_[device][static_cast<size_t>(use)];
    *buffer.get_deleter().counted += ggml_backend_buffer_get_size(buffer.get());
    return buffer;
}

std::vector<Buffer> Backend::allocate(const std::vector<ggml_tensor*>& tensors, Use use, size_t device,
                                      const std::string& what, const Take& take) const {
    ggml_backend_buffer_type_t type = buffer_type(device);
    const size_t alignment = ggml_backend_buft_get_alignment(type), most = ggml_backend_buft_get_max_size(type);
    const auto bytes_of = [&](const ggml_tensor* t) {
        return GGML_PAD(ggml_backend_buft_get_alloc_size(type, t), alignment);
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
        if (!buffer) buffer = allocate(bytes, use, device, what);
        // Operations go where their weights and states are.
        ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        ggml_tallocr place = ggml_tallocr_new(buffer.get());
        for (size_t i = first; i < end; ++i) ggml_tallocr_alloc(&place, tensors[i]);
        buffers.push_back(std::move(buffer));
    }
    return buffers;
}

}  // namespace sdltx
