// SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for what proves that somebody knows a secret.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "export.h"

namespace sdltx {

using Digest = std::array<uint8_t, 32>;

SDLTX_EXPORT Digest sha256(std::string_view message);
SDLTX_EXPORT Digest hmac_sha256(std::string_view key, std::string_view message);
// In a time that does not depend on where they differ.
bool equal(const Digest& a, const Digest& b);

}  // namespace sdltx
