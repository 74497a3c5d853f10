// ggml's CPU kernels and ours, which a build has for several instruction sets: which of them this processor gets.
#pragma once

#include <string>
#include <vector>

#include "base/export.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "kernels/kernels.h"

namespace sdltx {

// One build of the kernels.
struct CpuKernels {
    const char* name;  // of an instruction set: "x86-64-v3", or "native" for that of the machine that built it
    ggml_backend_reg_t (*reg)();
    ggml_cplan (*plan)(const ggml_cgraph*, int threads, ggml_threadpool*);  // tells the memory that a graph needs
    const Kernels* (*own)();
};

// Those that are built in and run here, the best first.
SDLTX_EXPORT std::vector<std::string> cpu_kernel_names();

// The best, or what the environment variable SDLTX_CPU_KERNELS names; the first call decides for the process. Throws
// Error(invalid_request) for a name that is not in cpu_kernel_names(), and Error(backend) when there are none, as the
// library was built for a processor that can do more. To be called before anything of ggml's CPU backend.
SDLTX_EXPORT const CpuKernels& cpu_kernels();

}  // namespace sdltx
