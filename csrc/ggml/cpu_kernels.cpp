#include "cpu_kernels.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <sstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/error.h"

// Each level of cmake/cpu_levels.cmake has ggml's functions under names of its own.
#define LEVEL(name, suffix)                                                                    \
    extern "C" ggml_backend_reg_t ggml_backend_cpu_reg_##suffix(void);                         \
    extern "C" ggml_cplan ggml_graph_plan_##suffix(const ggml_cgraph*, int, ggml_threadpool*); \
    extern "C" const sdltx::Kernels* sdltx_kernels_##suffix(void);                             \
    extern "C" const char sdltx_kernel_features_##suffix[];
#include "cpu_levels.inc"
#undef LEVEL
extern "C" const char sdltx_kernel_features[];

namespace sdltx {

namespace {

#if defined(__x86_64__)

// What a processor and its system offer, as bits of the registers that CPUID and XGETBV fill.
class Processor {
 public:
    Processor() {
        __get_cpuid(1, &leaf1_[0], &leaf1_[1], &leaf1_[2], &leaf1_[3]);
        __get_cpuid_count(7, 0, &leaf7_[0], &leaf7_[1], &leaf7_[2], &leaf7_[3]);
        if (leaf7_[0] >= 1) __get_cpuid_count(7, 1, &leaf7_1_[0], &leaf7_1_[1], &leaf7_1_[2], &leaf7_1_[3]);
        __get_cpuid(0x80000001, &extended_[0], &extended_[1], &extended_[2], &extended_[3]);
        constexpr unsigned osxsave = 1u << 27;
        if (leaf1_[2] & osxsave) {
            uint32_t low, high;
            __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            saved_ = low;
        }
    }

    // By the name of table.cpp: there, and its registers are saved by the system.
    bool has(const std::string& feature) const {
        constexpr unsigned of_avx = 0x6, of_avx512 = 0xe6, of_amx = 0x60000;
        struct Bit {
            const char* feature;
            unsigned value;
            int bit;
            unsigned saved;
        };
        const Bit bits[] = {
            {"sse3", leaf1_[2], 0, 0},
            {"ssse3", leaf1_[2], 9, 0},
            {"sse4.1", leaf1_[2], 19, 0},
            {"sse4.2", leaf1_[2], 20, 0},
            {"popcnt", leaf1_[2], 23, 0},
            {"lzcnt", extended_[2], 5, 0},
            {"bmi1", leaf7_[1], 3, 0},
            {"bmi2", leaf7_[1], 8, 0},
            {"gfni", leaf7_[2], 8, 0},
            {"avx", leaf1_[2], 28, of_avx},
            {"f16c", leaf1_[2], 29, of_avx},
            {"fma", leaf1_[2], 12, of_avx},
            {"avx2", leaf7_[1], 5, of_avx},
            {"avx_vnni", leaf7_1_[0], 4, of_avx},
            {"avx512f", leaf7_[1], 16, of_avx512},
            {"avx512cd", leaf7_[1], 28, of_avx512},
            {"avx512vl", leaf7_[1], 31, of_avx512},
            {"avx512dq", leaf7_[1], 17, of_avx512},
            {"avx512bw", leaf7_[1], 30, of_avx512},
            {"avx512vbmi", leaf7_[2], 1, of_avx512},
            {"avx512_vnni", leaf7_[2], 11, of_avx512},
            {"avx512_bf16", leaf7_1_[0], 5, of_avx512},
            {"avx512_fp16", leaf7_[3], 23, of_avx512},
            {"amx_tile", leaf7_[3], 24, of_amx},
        };
        for (const Bit& b : bits)
            if (feature == b.feature) return (b.value >> b.bit & 1) && (saved_ & b.saved) == b.saved;
        return true;  // one that no kernel was compiled for
    }

 private:
    using Registers = std::array<unsigned, 4>;  // eax, ebx, ecx, edx

    Registers leaf1_{}, leaf7_{}, leaf7_1_{}, extended_{};
    uint32_t saved_ = 0;
};

#else

struct Processor {
    bool has(const std::string&) const { return true; }
};

#endif

// Of the features of a level, those that this processor lacks, or that SDLTX_PRETEND_CPU_LACKS names.
std::vector<std::string> lacking(const char* features) {
    const Processor processor;
    const char* pretended = std::getenv("SDLTX_PRETEND_CPU_LACKS");
    const std::string absent = std::string(" ") + (pretended ? pretended : "") + " ";
    std::vector<std::string> missing;
    std::istringstream words(features);
    for (std::string feature; words >> feature;)
        if (!processor.has(feature) || absent.find(" " + feature + " ") != std::string::npos)
            missing.push_back(feature);
    return missing;
}

// Never destroyed: other threads may still run at the end of the process.
const std::vector<CpuKernels>& usable() {
    static const auto& kernels = *new std::vector<CpuKernels>([] {
        std::vector<CpuKernels> all;
#define LEVEL(name, suffix)                              \
    if (lacking(sdltx_kernel_features_##suffix).empty()) \
        all.push_back({name, ggml_backend_cpu_reg_##suffix, ggml_graph_plan_##suffix, sdltx_kernels_##suffix});
#include "cpu_levels.inc"
#undef LEVEL
        if (lacking(sdltx_kernel_features).empty())
            all.push_back({SDLTX_BASE_KERNELS, ggml_backend_cpu_reg, ggml_graph_plan, sdltx_kernels});
        return all;
    }());
    return kernels;
}

const CpuKernels* wanted() {
    const char* name = std::getenv("SDLTX_CPU_KERNELS");
    if (!name || !*name) return usable().empty() ? nullptr : &usable().front();
    for (const CpuKernels& kernels : usable())
        if (name == std::string(kernels.name)) return &kernels;
    return nullptr;
}

}  // namespace

std::vector<std::string> cpu_kernel_names() {
    std::vector<std::string> names;
    for (const CpuKernels& kernels : usable()) names.emplace_back(kernels.name);
    return names;
}

const CpuKernels& cpu_kernels() {
    static const CpuKernels* const chosen = wanted();
    if (chosen) return *chosen;
    if (usable().empty()) {
        std::string missing;
        for (const std::string& feature : lacking(sdltx_kernel_features))
            missing += (missing.empty() ? "" : ", ") + feature;
        throw Error(ErrorCode::backend,
                    "[device] this was built for a processor that has " + missing +
                        ", which this one lacks; build it here, in the source folder: pip install --force-reinstall "
                        "--no-deps .");
    }
    std::string known;
    for (const std::string& name : cpu_kernel_names()) known += (known.empty() ? "" : ", ") + name;
    throw Error(
        ErrorCode::invalid_request,
        "[device] the environment variable SDLTX_CPU_KERNELS names no kernels that run here; unset it or use " + known);
}

}  // namespace sdltx

// In place of ggml_backend_cpu_reg in ggml's own list of backends, which is made once and cannot fail; whoever computes
// has asked cpu_kernels() before.
extern "C" ggml_backend_reg_t sdltx_chosen_cpu_reg(void) {
    const sdltx::CpuKernels* chosen = sdltx::wanted();
    return chosen ? chosen->reg() : ggml_backend_cpu_reg();
}
