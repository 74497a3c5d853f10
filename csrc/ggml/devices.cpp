#include "devices.h"

#include <algorithm>
#include <cctype>
#include <mutex>

#include "base/error.h"
#include "base/log.h"
#include "cpu_kernels.h"
#include "ggml-rpc.h"
#include "worker.h"
#ifdef SDLTX_WITH_VULKAN
#include "ggml-vulkan.h"
#include "vulkan_loader.h"
#endif

namespace sdltx {

namespace {

constexpr size_t max_devices = 16;                 // of ggml's scheduler
constexpr size_t enough_memory = size_t{3} << 30;  // for the largest transformer, whose blocks pass through

std::string lower(std::string s) {
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::tolower(c); });
    return s;
}

std::string library_of(ggml_backend_dev_t dev) { return ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev)); }

bool is_integrated(ggml_backend_dev_t dev) { return ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_IGPU; }

struct Memory {
    size_t free = 0, total = 0;
};
Memory memory_of(ggml_backend_dev_t dev) {
    Memory m;
    ggml_backend_dev_memory(dev, &m.free, &m.total);
    return m;
}

// The same card may be known to two libraries.
std::string address_of(ggml_backend_dev_t dev) {
    ggml_backend_dev_props props{};
    ggml_backend_dev_get_props(dev, &props);
    return props.device_id ? props.device_id : "";
}

std::string spell_gib(size_t bytes) {
    const size_t tenths = (bytes * 10 + (size_t{1} << 29)) >> 30;
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

#ifdef SDLTX_WITH_VULKAN
// Reads what ggml says of Vulkan's devices while it looks for them, which it has no function for. Its attention adds up
// floats for BF16 and halves for F16; BF16 is as fast where matrix cores know it, and where there are none.
class DeviceLines {
 public:
    DeviceLines() {
        ggml_log_get(&before_, &before_data_);
        ggml_log_set(read, this);
    }
    ~DeviceLines() { ggml_log_set(before_, before_data_); }
    DeviceLines(const DeviceLines&) = delete;
    DeviceLines& operator=(const DeviceLines&) = delete;

    static std::vector<ggml_type>& keys_types() {  // by number of the device
        static std::vector<ggml_type> types;
        return types;
    }

 private:
    static void read(ggml_log_level level, const char* text, void* self) {
        const std::string line = text;
        const auto says = [&](const char* what) { return line.find(what) != std::string::npos; };
        if (says("| matrix cores: "))
            keys_types().push_back(says("| bf16: 1 |") || says("| matrix cores: none") ? GGML_TYPE_BF16
                                                                                       : GGML_TYPE_F16);
        const auto* lines = static_cast<DeviceLines*>(self);
        if (lines->before_) lines->before_(level, text, lines->before_data_);
    }

    ggml_log_callback before_ = nullptr;
    void* before_data_ = nullptr;
};
#endif

// Makes Vulkan's devices known; returns why there are none.
std::string find_vulkan() {
    std::string problem;
#ifdef SDLTX_WITH_VULKAN
    try {
        const DeviceLines lines;
        problem = vulkan_loader_problem();
        ggml_backend_reg_t vulkan = problem.empty() ? ggml_backend_vk_reg() : nullptr;
        if (vulkan && ggml_backend_reg_dev_count(vulkan) > 0)
            ggml_backend_register(vulkan);
        else if (problem.empty())
            problem = "no driver of a GPU answers; vulkaninfo of the package vulkan-tools tells more";
    } catch (const std::exception& e) {  // a driver that fails
        problem = std::string("a driver fails: ") + e.what();
    }
#endif
    return problem;
}

// Discrete GPUs come first, then libraries that are made for a card, then the larger memory.
ggml_backend_dev_t best_device() {
    std::vector<ggml_backend_dev_t> found;
    std::string passed_over;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        if (!is_gpu(dev) || is_remote(dev)) continue;
        if (memory_of(dev).free < enough_memory)
            passed_over += ", " + name_of(dev) + " has " + spell_gib(memory_of(dev).free) + " free";
        else
            found.push_back(dev);
    }
    const auto before = [](ggml_backend_dev_t a, ggml_backend_dev_t b) {
        if (is_integrated(a) != is_integrated(b)) return is_integrated(b);
        if (is_vulkan(a) != is_vulkan(b)) return is_vulkan(b);
        return memory_of(a).total > memory_of(b).total;
    };
    std::stable_sort(found.begin(), found.end(), before);
    if (found.empty()) {
        if (!vulkan_problem().empty()) passed_over += ", Vulkan: " + vulkan_problem();
        log(20, "[device] auto takes the CPU" + (passed_over.empty() ? ", as no GPU is there" : passed_over));
        return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    }
    ggml_backend_dev_t best = found.front();
    std::string others;
    for (ggml_backend_dev_t dev : found)
        if (dev != best && (address_of(dev).empty() || address_of(dev) != address_of(best)))
            others += (others.empty() ? "; there are also " : ", ") + name_of(dev);
    log(20, "[device] auto takes " + name_of(best) + ", " + ggml_backend_dev_description(best) + ", " +
                spell_gib(memory_of(best).free) + " free" + passed_over + others);
    return best;
}

// The devices of the worker at "HOST:PORT", and the right to use it.
std::vector<ggml_backend_dev_t> find_worker(const std::string& endpoint, std::vector<std::shared_ptr<void>>& workers) {
    workers.push_back(reserve_worker(endpoint));
    ggml_backend_reg_t worker = ggml_backend_rpc_add_server(endpoint.c_str());
    if (!worker) throw Error(ErrorCode::backend, "[device] the worker at " + endpoint + " has no devices");
    std::vector<ggml_backend_dev_t> devices;
    for (size_t i = 0; i < ggml_backend_reg_dev_count(worker); ++i)
        devices.push_back(ggml_backend_reg_dev_get(worker, i));
    return devices;
}

std::vector<ggml_backend_dev_t> find_devices(const std::string& wanted, std::vector<std::shared_ptr<void>>& workers) {
    const std::string name = lower(wanted);
    if (name.rfind("rpc:", 0) == 0) return find_worker(wanted.substr(4), workers);
    if (name == "cpu") return {ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU)};  // no driver is asked
    look_for_gpus();
    if (name == "auto") return {best_device()};
    std::string known;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        if (name_of(dev) == name) return {dev};
        known += (known.empty() ? "" : ", ") + name_of(dev);
    }
    std::string why;
    if (name.rfind("vulkan", 0) == 0)
        why = vulkan_is_built_in() ? (vulkan_problem().empty() ? "" : " (Vulkan: " + vulkan_problem() + ")")
                                   : " (Vulkan is not built in; sdltx-cli doctor says how)";
    throw Error(ErrorCode::backend, "[device] there is no device '" + wanted + "' here; this build sees: " + known +
                                        ", and workers as rpc:HOST:PORT" + why);
}

}  // namespace

bool is_cpu(ggml_backend_dev_t dev) { return ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU; }

bool is_gpu(ggml_backend_dev_t dev) {
    return ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_GPU || is_integrated(dev);
}

bool is_remote(ggml_backend_dev_t dev) { return library_of(dev) == "RPC"; }

bool is_vulkan(ggml_backend_dev_t dev) { return library_of(dev) == "Vulkan"; }

ggml_type keys_type_of(ggml_backend_dev_t dev) {
#ifdef SDLTX_WITH_VULKAN
    const std::vector<ggml_type>& types = DeviceLines::keys_types();
    if (is_vulkan(dev))
        for (size_t i = 0; i < types.size(); ++i)
            if (name_of(dev) == "vulkan" + std::to_string(i)) return types[i];
#endif
    static_cast<void>(dev);
    return GGML_TYPE_F16;
}

std::string kind_of(ggml_backend_dev_t dev) {
    return is_remote(dev) ? "remote" : is_cpu(dev) ? "cpu" : is_gpu(dev) ? "gpu" : "accelerator";
}

std::string name_of(ggml_backend_dev_t dev) {
    return is_remote(dev) ? std::string("rpc:") + ggml_backend_dev_description(dev) : lower(ggml_backend_dev_name(dev));
}

void look_for_gpus() { vulkan_problem(); }

const std::string& vulkan_problem() {
    static const std::string problem = find_vulkan();
    return problem;
}

bool vulkan_is_built_in() {
#ifdef SDLTX_WITH_VULKAN
    return true;
#else
    return false;
#endif
}

// The CPU is a device on its own only.
std::vector<ggml_backend_dev_t> find_all_devices(const std::string& list, std::vector<std::shared_ptr<void>>& workers) {
    std::vector<ggml_backend_dev_t> devices;
    for (size_t at = 0; at <= list.size();) {
        const size_t comma = std::min(list.find(',', at), list.size());
        for (ggml_backend_dev_t dev : find_devices(list.substr(at, comma - at), workers)) {
            if (std::find(devices.begin(), devices.end(), dev) != devices.end())
                throw Error(ErrorCode::invalid_request, "[device] '" + name_of(dev) + "' is given twice");
            devices.push_back(dev);
        }
        at = comma + 1;
    }
    if (devices.size() > 1 && std::any_of(devices.begin(), devices.end(), is_cpu))
        throw Error(ErrorCode::invalid_request,
                    "[device] the CPU helps every other device anyway; leave it out of '" + list + "'");
    // One place in the scheduler is the CPU's.
    if (devices.size() >= max_devices)
        throw Error(ErrorCode::invalid_request,
                    "[device] at most " + std::to_string(max_devices - 1) + " devices can be used at once");
    return devices;
}

}  // namespace sdltx
