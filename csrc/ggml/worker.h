// Devices of other machines, by ggml's remote procedure calls: serving one's own, and asking for those of others.
#pragma once

#include <memory>
#include <string>

#include "base/export.h"

namespace sdltx {

// Serves one client after the other until the process ends, which is when its parent does; it writes who comes and goes
// to stdout. Who is let in can compute with, read and crash this process, so that another one should start it again.
// Where SDLTX_WORKER_SECRET is set, clients have to prove that they know it before they are heard; else everybody who
// reaches the port is let in. host: an IPv4 address of this machine. device: as Backend takes it, without workers.
// max_memory: GiB that it may take; 0: nine tenths of what is free. Throws Error(invalid_request | backend), the latter
// also when the port cannot be used, and for what a client does that cannot be.
SDLTX_EXPORT void serve(const std::string& host, int port, const std::string& device, int threads, double max_memory);

// The right to use the worker at "HOST:PORT", one at a time in a process; it ends with the last copy. Throws
// Error(invalid_request) for another form of address, Error(busy) when this process uses it or it serves somebody else,
// Error(backend) when nobody answers as a worker of this version does.
std::shared_ptr<void> reserve_worker(const std::string& endpoint);

}  // namespace sdltx
