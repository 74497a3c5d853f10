#include "error.h"

#include <cstring>
#include <system_error>

namespace sdltx {

std::optional<Error> device_error(const std::exception& e) {
    const auto* failed = dynamic_cast<const std::system_error*>(&e);
    if (!failed || std::strcmp(failed->code().category().name(), "vk::Result") != 0) return std::nullopt;
    constexpr int out_of_host_memory = -1, out_of_device_memory = -2;  // VkResult
    const int result = failed->code().value();
    if (result == out_of_device_memory || result == out_of_host_memory)
        return Error(ErrorCode::out_of_memory,
                     "[device] Vulkan has no memory left (" + std::string(e.what()) +
                         "); ask for a smaller picture or fewer frames, close other programs, or use offload blocks");
    return Error(ErrorCode::backend, "[device] Vulkan fails (" + std::string(e.what()) +
                                         "); look at the driver, ask for a smaller clip, or use device cpu");
}

}  // namespace sdltx
