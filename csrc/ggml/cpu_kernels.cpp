#include "ggml/cpu_kernels.h"

#include <array>
#include <cstdint>
#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "error.h"

// Each level of cmake/cpu_levels.cmake has ggml's functions under names of its own.
#define LEVEL(name, suffix)                                                                    \
    extern "C" ggml_backend_reg_t ggml_backend_cpu_reg_##suffix(void);                         \
    extern "C" ggml_cplan ggml_graph_plan_##suffix(const ggml_cgraph*, int, ggml_threadpool*); \
    extern "C" const sdltx::Kernels* sdltx_kernels_##suffix(void);
#include "cpu_levels.inc"
#undef LEVEL

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
        constexpr unsigned osxsave = 1u << 27;
        if (leaf1_[2] & osxsave) {
            uint32_t low, high;
            __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
            saved_ = low;
        }
    }

    // SSE4.2, AVX, FMA, F16C; AVX2, BMI2; and the system saves the registers.
    bool v3() const { return has(leaf1_[2], {20, 28, 12, 29}) && has(leaf7_[1], {5, 8}) && (saved_ & 0x6) == 0x6; }
    bool avx_vnni() const { return has(leaf7_1_[0], {4}); }
    // AVX512 F, CD, VL, DQ, BW.
    bool v4() const { return v3() && has(leaf7_[1], {16, 28, 31, 17, 30}) && (saved_ & 0xe0) == 0xe0; }
    // AVX512 VNNI.
    bool avx512_vnni() const { return has(leaf7_[2], {11}); }
    bool avx512_bf16() const { return has(leaf7_1_[0], {5}); }

    // By the suffix of a level.
    bool runs(const std::string& level) const {
        if (level == "v3") return v3();
        if (level == "v3_vnni") return v3() && avx_vnni();
        if (level == "v4_vnni") return v4() && avx512_vnni();
        if (level == "v4_bf16") return v4() && avx512_vnni() && avx512_bf16();
        return false;
    }

 private:
    using Registers = std::array<unsigned, 4>;  // eax, ebx, ecx, edx

    template <size_t N>
    static bool has(unsigned value, const int (&bits)[N]) {
        for (int bit : bits)
            if (!(value >> bit & 1)) return false;
        return true;
    }

    Registers leaf1_{}, leaf7_{}, leaf7_1_{};
    uint32_t saved_ = 0;
};

#else

struct Processor {
    bool runs(const std::string&) const { return false; }
};

#endif

// Never destroyed: other threads may still run at the end of the process.
const std::vector<CpuKernels>& usable() {
    static const auto& kernels = *new std::vector<CpuKernels>([] {
        std::vector<CpuKernels> all;
        [[maybe_unused]] const Processor processor;
#define LEVEL(name, suffix)      \
    if (processor.runs(#suffix)) \
        all.push_back({name, ggml_backend_cpu_reg_##suffix, ggml_graph_plan_##suffix, sdltx_kernels_##suffix});
#include "cpu_levels.inc"
#undef LEVEL
        all.push_back({SDLTX_BASE_KERNELS, ggml_backend_cpu_reg, ggml_graph_plan, sdltx_kernels});
        return all;
    }());
    return kernels;
}

const CpuKernels* wanted() {
    const char* name = std::getenv("SDLTX_CPU_KERNELS");
    if (!name || !*name) return &usable().front();
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
