// Devices of other machines, by ggml's remote procedure calls: serving one's own, and asking for those of others.
#pragma once

#include <memory>
#include <string>

#include "base/export.h"

namespace sdltx {

// Serves one client after the other until the process ends; it writes who comes and goes to stdout. Anybody who reaches
// the port can compute with, read and crash this process, so `host` should be an address that only friends reach.
// host: an IPv4 address of this machine. device: as Backend takes it, without workers. Throws Error(invalid_request |
// backend), the latter also when the port cannot be used.
SDLTX_EXPORT void serve(const std::string& host, int port, const std::string& device, int threads);

// The right to use the worker at "HOST:PORT", one at a time in a process; it ends with the last copy. Throws
// Error(invalid_request) for another form of address, Error(busy) when this process uses it or it serves somebody else,
// Error(backend) when nobody answers as a worker of this version does.
std::shared_ptr<void> reserve_worker(const std::string& endpoint);

}  // namespace sdltx
