#include "vulkan_loader.h"

#include <dlfcn.h>
#include <vulkan/vulkan_core.h>

#include <cstring>

namespace {

constexpr uint32_t needed_version = VK_API_VERSION_1_2;  // ggml's
constexpr const char* library_name = "libvulkan.so.1";

std::string spell(uint32_t version) {
    return std::to_string(VK_API_VERSION_MAJOR(version)) + "." + std::to_string(VK_API_VERSION_MINOR(version));
}

struct Loader {
    PFN_vkGetInstanceProcAddr get_instance_proc = nullptr;  // null unless it can be used
    void* library = nullptr;                                // stays open: drivers have threads and exit handlers
    std::string problem;

    Loader() {
        library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            problem = std::string(library_name) +
                      " is not there; it comes with the driver of a GPU, or as the package "
                      "libvulkan1";
            return;
        }
        const auto get = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
        const auto ask =
            get ? reinterpret_cast<PFN_vkEnumerateInstanceVersion>(get(nullptr, "vkEnumerateInstanceVersion"))
                : nullptr;
        uint32_t version = VK_API_VERSION_1_0;  // those of 1.0 cannot be asked
        if (ask && ask(&version) != VK_SUCCESS) version = VK_API_VERSION_1_0;
        if (version < needed_version)
            problem = std::string(library_name) + " is of Vulkan " + spell(version) + ", and " + spell(needed_version) +
                      " is needed; get a newer driver";
        else
            get_instance_proc = get;
    }

    template <typename F>
    F function(const char* name) const {
        return reinterpret_cast<F>(dlsym(library, name));
    }
};

const Loader& loader() {
    static const Loader one;
    return one;
}

// What a loader without a driver answers. ggml asks for a version and for extensions first, and asks aloud.
PFN_vkVoidFunction without_driver(const char* name) {
    const auto is = [&](const char* other) { return std::strcmp(name, other) == 0; };
    if (is("vkEnumerateInstanceVersion"))
        return reinterpret_cast<PFN_vkVoidFunction>(+[](uint32_t* version) {
            *version = needed_version;
            return VK_SUCCESS;
        });
    if (is("vkEnumerateInstanceExtensionProperties"))
        return reinterpret_cast<PFN_vkVoidFunction>(+[](const char*, uint32_t* count, VkExtensionProperties*) {
            *count = 0;
            return VK_SUCCESS;
        });
    if (is("vkCreateInstance"))
        return reinterpret_cast<PFN_vkVoidFunction>(+[](const VkInstanceCreateInfo*, const VkAllocationCallbacks*,
                                                        VkInstance*) { return VK_ERROR_INCOMPATIBLE_DRIVER; });
    return nullptr;
}

}  // namespace

std::string sdltx::vulkan_loader_problem() { return loader().problem; }

// All that ggml links; it asks these for the rest. Hidden, so that nobody else's calls in the process come here.
extern "C" {

PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char* name) {
    const auto get = loader().get_instance_proc;
    return get ? get(instance, name) : without_driver(name);
}

PFN_vkVoidFunction vkGetDeviceProcAddr(VkDevice device, const char* name) {
    static const auto get = loader().function<PFN_vkGetDeviceProcAddr>("vkGetDeviceProcAddr");
    return get(device, name);
}

void vkGetPhysicalDeviceFeatures2(VkPhysicalDevice device, VkPhysicalDeviceFeatures2* features) {
    static const auto get = loader().function<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2");
    get(device, features);
}

void vkCmdCopyBuffer(VkCommandBuffer commands, VkBuffer from, VkBuffer to, uint32_t count,
                     const VkBufferCopy* regions) {
    static const auto copy = loader().function<PFN_vkCmdCopyBuffer>("vkCmdCopyBuffer");
    copy(commands, from, to, count, regions);
}

}  // extern "C"
