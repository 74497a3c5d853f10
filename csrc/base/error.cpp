#include "error.h"

#include <cstdint>
#include <cstring>
#include <system_error>

namespace sdltx {

namespace {

std::string one_line(const std::string& text) {
    constexpr size_t longest = 4000;
    std::string line;
    for (const char c : text) {
        if (line.size() > longest && (static_cast<uint8_t>(c) & 0xC0) != 0x80) return line + "...";
        const auto byte = static_cast<uint8_t>(c);
        if (byte >= 0x20 && byte != 0x7F) {
            line += c;
        } else if (c == '\n') {
            line += "\\n";
        } else {
            constexpr const char* digits = "0123456789abcdef";
            line += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
        }
    }
    return line;
}

}  // namespace

Error::Error(ErrorCode code, const std::string& text) : std::runtime_error(one_line(text)), code_(code) {}

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
