// A loader of Vulkan that stands before a real one: its device has the limits and the memory of another card, what is asked of it is
// checked against them, and nothing is computed. Pipelines are never made, so no shader is compiled. See README.md.
//
// DRY_RUN_LOADER: the real one. DRY_RUN_LIMITS: "name=value ..." of those in cards.json. DRY_RUN_MEMORY_MIB.
// DRY_RUN_LOST_AT: the submission from which on the device is lost.
#include <dlfcn.h>
#include <vulkan/vulkan_core.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>

namespace {

struct Limits {
    std::map<std::string, uint64_t> given;

    Limits() {
        std::istringstream text(std::getenv("DRY_RUN_LIMITS") ? std::getenv("DRY_RUN_LIMITS") : "");
        for (std::string one; text >> one;) {
            const size_t at = one.find('=');
            given[one.substr(0, at)] = std::strtoull(one.c_str() + at + 1, nullptr, 0);
        }
        if (const char* memory = std::getenv("DRY_RUN_MEMORY_MIB")) given["memory"] = std::strtoull(memory, nullptr, 0) << 20;
    }
    template <typename T>
    void set(const char* name, T& value) const {
        const auto at = given.find(name);
        if (at != given.end()) value = static_cast<T>(at->second);
    }
    uint64_t of(const char* name) const {
        const auto at = given.find(name);
        return at == given.end() ? UINT64_MAX : at->second;
    }
};
const Limits limits;

struct Counts {
    std::mutex mutex;
    uint64_t dispatches = 0, copies = 0, submissions = 0, held = 0, peak = 0;
    std::map<VkDeviceMemory, uint64_t> memory;
    std::set<std::string> refused;

    void refuse(const std::string& what) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (refused.insert(what).second) std::fprintf(stderr, "dry run: refused: %s\n", what.c_str());
    }
    void check(const char* name, uint64_t value) {
        if (value > limits.of(name)) refuse(std::string(name) + " " + std::to_string(value));
    }
    ~Counts() {
        std::fprintf(stderr, "dry run: peak of %llu MiB\ndry run: %llu dispatches, %llu copies, %llu submissions\n",
                     static_cast<unsigned long long>(peak >> 20), static_cast<unsigned long long>(dispatches),
                     static_cast<unsigned long long>(copies), static_cast<unsigned long long>(submissions));
    }
};
Counts counts;

void* real_library() {
    static void* const library = [] {
        void* found = dlopen(std::getenv("DRY_RUN_LOADER"), RTLD_NOW | RTLD_LOCAL);
        if (!found) std::abort();
        return found;
    }();
    return library;
}

VkInstance the_instance = nullptr;
VkDevice the_device = nullptr;

template <typename F>
F real(const char* name) {
    static std::mutex mutex;
    static std::map<std::string, PFN_vkVoidFunction> known;
    const std::lock_guard<std::mutex> lock(mutex);
    PFN_vkVoidFunction& f = known[name];
    const auto exported = [](const char* of) { return dlsym(real_library(), of); };
    if (!f && the_device)
        f = reinterpret_cast<PFN_vkGetDeviceProcAddr>(exported("vkGetDeviceProcAddr"))(the_device, name);
    if (!f)
        f = reinterpret_cast<PFN_vkGetInstanceProcAddr>(exported("vkGetInstanceProcAddr"))(the_instance, name);
    return reinterpret_cast<F>(f);
}

template <typename Handle>
Handle next_handle() {
    static std::atomic<uint64_t> last{0x1000};
    return reinterpret_cast<Handle>(++last);
}

// The structure of this type behind another one; null if nobody asks for it.
template <typename T>
T* chained(void* first, VkStructureType type) {
    for (auto* next = static_cast<VkBaseOutStructure*>(first); next; next = next->pNext)
        if (next->sType == type) return reinterpret_cast<T*>(next);
    return nullptr;
}

// --- what the device is ---

void change(VkPhysicalDeviceProperties& p) {
    VkPhysicalDeviceLimits& l = p.limits;
    limits.set("workgroups_x", l.maxComputeWorkGroupCount[0]);
    limits.set("workgroups_y", l.maxComputeWorkGroupCount[1]);
    limits.set("workgroups_z", l.maxComputeWorkGroupCount[2]);
    limits.set("storage_range", l.maxStorageBufferRange);
    limits.set("push_constants", l.maxPushConstantsSize);
    limits.set("shared_memory", l.maxComputeSharedMemorySize);
    limits.set("offset_alignment", l.minStorageBufferOffsetAlignment);
    limits.set("vendor", p.vendorID);
    p.deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
}

void VKAPI_CALL properties(VkPhysicalDevice device, VkPhysicalDeviceProperties* p) {
    real<PFN_vkGetPhysicalDeviceProperties>("vkGetPhysicalDeviceProperties")(device, p);
    change(*p);
}

void VKAPI_CALL properties2(VkPhysicalDevice device, VkPhysicalDeviceProperties2* p) {
    real<PFN_vkGetPhysicalDeviceProperties2>("vkGetPhysicalDeviceProperties2")(device, p);
    change(p->properties);
    if (auto* more = chained<VkPhysicalDeviceMaintenance3Properties>(
            p->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES))
        limits.set("allocation", more->maxMemoryAllocationSize);
    if (auto* more = chained<VkPhysicalDeviceMaintenance4Properties>(
            p->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES))
        limits.set("buffer", more->maxBufferSize);
}

void change(VkPhysicalDeviceMemoryProperties& m) {
    for (uint32_t i = 0; i < m.memoryHeapCount; ++i) limits.set("memory", m.memoryHeaps[i].size);
}

void VKAPI_CALL memory_properties(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties* m) {
    real<PFN_vkGetPhysicalDeviceMemoryProperties>("vkGetPhysicalDeviceMemoryProperties")(device, m);
    change(*m);
}

void VKAPI_CALL memory_properties2(VkPhysicalDevice device, VkPhysicalDeviceMemoryProperties2* m) {
    real<PFN_vkGetPhysicalDeviceMemoryProperties2>("vkGetPhysicalDeviceMemoryProperties2")(device, m);
    change(m->memoryProperties);
    auto* budget = chained<VkPhysicalDeviceMemoryBudgetPropertiesEXT>(
        m->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT);
    if (!budget) return;
    const uint64_t all = m->memoryProperties.memoryHeaps[0].size;
    budget->heapBudget[0] = all;
    budget->heapUsage[0] = std::min(counts.held, all);
}

// --- what is asked of it ---

VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info, const VkAllocationCallbacks* a, VkInstance* instance) {
    const VkResult result = real<PFN_vkCreateInstance>("vkCreateInstance")(info, a, instance);
    if (result == VK_SUCCESS) the_instance = *instance;
    return result;
}

VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo* info, const VkAllocationCallbacks* a,
                                  VkDevice* device) {
    const VkResult result = real<PFN_vkCreateDevice>("vkCreateDevice")(physical, info, a, device);
    if (result == VK_SUCCESS) the_device = *device;
    return result;
}

VkResult VKAPI_CALL create_buffer(VkDevice device, const VkBufferCreateInfo* info, const VkAllocationCallbacks* a, VkBuffer* b) {
    counts.check("buffer", info->size);
    return real<PFN_vkCreateBuffer>("vkCreateBuffer")(device, info, a, b);
}

VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo* info, const VkAllocationCallbacks* a, VkDeviceMemory* m) {
    counts.check("allocation", info->allocationSize);
    {
        const std::lock_guard<std::mutex> lock(counts.mutex);
        if (counts.held + info->allocationSize > limits.of("memory")) return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    }
    const VkResult result = real<PFN_vkAllocateMemory>("vkAllocateMemory")(device, info, a, m);
    if (result != VK_SUCCESS) return result;
    const std::lock_guard<std::mutex> lock(counts.mutex);
    counts.held += counts.memory[*m] = info->allocationSize;
    counts.peak = std::max(counts.peak, counts.held);
    return result;
}

void VKAPI_CALL free_memory(VkDevice device, VkDeviceMemory m, const VkAllocationCallbacks* a) {
    real<PFN_vkFreeMemory>("vkFreeMemory")(device, m, a);
    const std::lock_guard<std::mutex> lock(counts.mutex);
    counts.held -= counts.memory[m];
    counts.memory.erase(m);
}

VkResult VKAPI_CALL create_module(VkDevice, const VkShaderModuleCreateInfo*, const VkAllocationCallbacks*, VkShaderModule* m) {
    *m = next_handle<VkShaderModule>();
    return VK_SUCCESS;
}
void VKAPI_CALL destroy_module(VkDevice, VkShaderModule, const VkAllocationCallbacks*) {}

VkResult VKAPI_CALL create_pipelines(VkDevice, VkPipelineCache, uint32_t count, const VkComputePipelineCreateInfo*,
                                     const VkAllocationCallbacks*, VkPipeline* pipelines) {
    for (uint32_t i = 0; i < count; ++i) pipelines[i] = next_handle<VkPipeline>();
    return VK_SUCCESS;
}
void VKAPI_CALL destroy_pipeline(VkDevice, VkPipeline, const VkAllocationCallbacks*) {}
void VKAPI_CALL bind_pipeline(VkCommandBuffer, VkPipelineBindPoint, VkPipeline) {}

void VKAPI_CALL dispatch(VkCommandBuffer, uint32_t x, uint32_t y, uint32_t z) {
    counts.check("workgroups_x", x);
    counts.check("workgroups_y", y);
    counts.check("workgroups_z", z);
    ++counts.dispatches;
}

void VKAPI_CALL push_constants(VkCommandBuffer, VkPipelineLayout, VkShaderStageFlags, uint32_t offset, uint32_t size, const void*) {
    counts.check("push_constants", uint64_t{offset} + size);
}

void VKAPI_CALL update_sets(VkDevice device, uint32_t count, const VkWriteDescriptorSet* writes, uint32_t copies,
                            const VkCopyDescriptorSet* copied) {
    for (uint32_t i = 0; i < count; ++i)
        for (uint32_t k = 0; writes[i].pBufferInfo && k < writes[i].descriptorCount; ++k) {
            const VkDescriptorBufferInfo& b = writes[i].pBufferInfo[k];
            if (b.range != VK_WHOLE_SIZE) counts.check("storage_range", b.range);
            if (limits.of("offset_alignment") != UINT64_MAX && b.offset % limits.of("offset_alignment"))
                counts.refuse("offset " + std::to_string(b.offset));
        }
    real<PFN_vkUpdateDescriptorSets>("vkUpdateDescriptorSets")(device, count, writes, copies, copied);
}

void VKAPI_CALL copy_buffer(VkCommandBuffer c, VkBuffer from, VkBuffer to, uint32_t count, const VkBufferCopy* regions) {
    counts.copies += count;
    real<PFN_vkCmdCopyBuffer>("vkCmdCopyBuffer")(c, from, to, count, regions);
}

VkResult VKAPI_CALL submit(VkQueue queue, uint32_t count, const VkSubmitInfo* infos, VkFence fence) {
    static const char* const lost_at = std::getenv("DRY_RUN_LOST_AT");
    if (++counts.submissions >= (lost_at ? std::strtoull(lost_at, nullptr, 0) : UINT64_MAX)) return VK_ERROR_DEVICE_LOST;
    return real<PFN_vkQueueSubmit>("vkQueueSubmit")(queue, count, infos, fence);
}

PFN_vkVoidFunction ours(const std::string& name);

}  // namespace

extern "C" {

__attribute__((visibility("default"))) PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char* name) {
    if (PFN_vkVoidFunction f = ours(name)) return f;
    return reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(real_library(), "vkGetInstanceProcAddr"))(instance, name);
}

__attribute__((visibility("default"))) PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char* name) {
    if (PFN_vkVoidFunction f = ours(name)) return f;
    return reinterpret_cast<PFN_vkGetDeviceProcAddr>(dlsym(real_library(), "vkGetDeviceProcAddr"))(device, name);
}

__attribute__((visibility("default"))) void vkGetPhysicalDeviceFeatures2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2* f) {
    real<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2")(device, f);
}

__attribute__((visibility("default"))) void vkCmdCopyBuffer(VkCommandBuffer c, VkBuffer from, VkBuffer to, uint32_t count,
                                                            const VkBufferCopy* regions) {
    copy_buffer(c, from, to, count, regions);
}

}  // extern "C"

namespace {

PFN_vkVoidFunction ours(const std::string& name) {
#define OURS(vulkan, function) {vulkan, reinterpret_cast<PFN_vkVoidFunction>(function)}
    static const std::map<std::string, PFN_vkVoidFunction> all = {
        OURS("vkGetInstanceProcAddr", vkGetInstanceProcAddr),
        OURS("vkGetDeviceProcAddr", vkGetDeviceProcAddr),
        OURS("vkCreateInstance", create_instance),
        OURS("vkCreateDevice", create_device),
        OURS("vkGetPhysicalDeviceProperties", properties),
        OURS("vkGetPhysicalDeviceProperties2", properties2),
        OURS("vkGetPhysicalDeviceProperties2KHR", properties2),
        OURS("vkGetPhysicalDeviceMemoryProperties", memory_properties),
        OURS("vkGetPhysicalDeviceMemoryProperties2", memory_properties2),
        OURS("vkGetPhysicalDeviceMemoryProperties2KHR", memory_properties2),
        OURS("vkCreateBuffer", create_buffer),
        OURS("vkAllocateMemory", allocate),
        OURS("vkFreeMemory", free_memory),
        OURS("vkCreateShaderModule", create_module),
        OURS("vkDestroyShaderModule", destroy_module),
        OURS("vkCreateComputePipelines", create_pipelines),
        OURS("vkDestroyPipeline", destroy_pipeline),
        OURS("vkCmdBindPipeline", bind_pipeline),
        OURS("vkCmdDispatch", dispatch),
        OURS("vkCmdPushConstants", push_constants),
        OURS("vkUpdateDescriptorSets", update_sets),
        OURS("vkCmdCopyBuffer", copy_buffer),
        OURS("vkQueueSubmit", submit),
    };
#undef OURS
    const auto at = all.find(name);
    return at == all.end() ? nullptr : at->second;
}

}  // namespace
