// libcudart and libcublas without a GPU. Device memory is memory of the host that stays zero where nothing is copied to
// it, and kernels do nothing. What is asked of them is held against what a GPU takes: how kernels are launched, their
// shared memory, copies and their ends, sizes of products. What it would refuse is refused, and told on standard error
// once for each kernel; see README.md.
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

size_t setting(const char* name, size_t otherwise) {
    const char* value = std::getenv(name);
    return value ? std::strtoull(value, nullptr, 10) : otherwise;
}

struct Limits {
    int capability = static_cast<int>(setting("DRY_RUN_CAPABILITY", 86));
    size_t memory = setting("DRY_RUN_MEMORY_MIB", 24 << 10) << 20;
    size_t shared = 48 << 10;
    // The most that a kernel may ask for.
    size_t shared_optin() const {
        switch (capability) {
            case 75:
                return 64 << 10;
            case 80:
                return 163 << 10;
            case 90:
            case 100:
                return 227 << 10;
            default:
                return 99 << 10;
        }
    }
} limits;

struct State {
    std::mutex mutex;
    std::map<const void*, std::string> names;
    std::map<const void*, size_t> shared;  // dynamic, that a kernel asked for
    std::map<std::string, size_t> launches;
    std::map<const char*, size_t> blocks;  // device memory
    size_t used = 0, peak = 0;
    size_t to_host = 0, to_device = 0;
    std::set<std::string> said;
    cudaError_t last = cudaSuccess;
};
// Never destroyed: libraries give memory back when the process ends.
State& state() {
    static State* s = new State;
    return *s;
}

void say(const std::string& key, const std::string& text) {
    if (state().said.insert(key).second) std::fprintf(stderr, "dry run: %s\n", text.c_str());
}

struct Report {
    ~Report() {
        State& s = state();
        std::lock_guard<std::mutex> lock(s.mutex);
        if (s.launches.empty()) return;
        std::fprintf(stderr, "dry run: peak of %zu MiB on the device, %zu MiB copied to it, %zu MiB from it\n",
                     s.peak >> 20, s.to_device >> 20, s.to_host >> 20);
        if (std::getenv("DRY_RUN_LAUNCHES"))
            for (const auto& [name, count] : s.launches)
                std::fprintf(stderr, "dry run: %8zu %s\n", count, name.c_str());
    }
} report;

std::string text(dim3 d) { return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z); }

cudaError_t failed(cudaError_t error) { return state().last = error; }

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, size_t shared) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    const auto found = s.names.find(kernel);
    const std::string name = found == s.names.end() ? "an unknown kernel" : found->second;
    ++s.launches[name];
    const auto asked = s.shared.find(kernel);
    const size_t most = asked == s.shared.end() ? limits.shared : std::max(limits.shared, asked->second);
    const bool bad_grid = !grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535;
    const bool bad_block = !block.x || !block.y || !block.z || block.x > 1024 || block.y > 1024 || block.z > 64 ||
                           block.x * block.y * block.z > 1024;
    if (!bad_grid && !bad_block && shared <= most) return cudaSuccess;
    say(name, name + ": refused: grid " + text(grid) + ", block " + text(block) + ", shared memory " +
                  std::to_string(shared) + " of " + std::to_string(most));
    return failed(cudaErrorInvalidConfiguration);
}

// What is left of an allocation behind p; SIZE_MAX for host memory.
size_t behind(const void* p) {
    State& s = state();
    auto next = s.blocks.upper_bound(static_cast<const char*>(p));
    if (next == s.blocks.begin()) return SIZE_MAX;
    --next;
    const size_t at = static_cast<size_t>(static_cast<const char*>(p) - next->first);
    return at >= next->second ? SIZE_MAX : next->second - at;
}

cudaError_t copy(void* dst, const void* src, size_t bytes, const char* what) {
    State& s = state();
    {
        std::lock_guard<std::mutex> lock(s.mutex);
        const size_t to = behind(dst), from = behind(src);
        if (bytes > to || bytes > from) {
            say(what, std::string(what) + " beyond an allocation: " + std::to_string(bytes) + " bytes");
            return failed(cudaErrorInvalidValue);
        }
        if (to == SIZE_MAX && from != SIZE_MAX) s.to_host += bytes;
        if (to != SIZE_MAX && from == SIZE_MAX) s.to_device += bytes;
    }
    std::memmove(dst, src, bytes);
    return cudaSuccess;
}

void* handle() { return reinterpret_cast<void*>(0x1000); }

}  // namespace

// What the code that nvcc makes calls.
API void** __cudaRegisterFatBinary(void*) {
    static void* binary;
    return &binary;
}
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API char __cudaInitModule(void**) { return 1; }
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API void __cudaRegisterFunction(void**, const char* host, char*, const char* device, int, uint3*, uint3*, dim3*, dim3*,
                                int*) {
    std::lock_guard<std::mutex> lock(state().mutex);
    state().names[host] = device;
}
struct Configuration {
    dim3 grid, block;
    size_t shared;
    void* stream;
};
static thread_local std::vector<Configuration> pushed;
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
    pushed.push_back({grid, block, shared, stream});
    return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    const Configuration c = pushed.back();
    pushed.pop_back();
    *grid = c.grid, *block = c.block, *shared = c.shared, *static_cast<void**>(stream) = c.stream;
    return cudaSuccess;
}
API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t) {
    return launch(reinterpret_cast<const void*>(kernel), grid, block, shared);
}
API cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t shared,
                                        cudaStream_t) {
    return launch(reinterpret_cast<const void*>(kernel), grid, block, shared);
}
API cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared, cudaStream_t) {
    return launch(kernel, grid, block, shared);
}
API cudaError_t cudaLaunchCooperativeKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared,
                                            cudaStream_t) {
    return launch(kernel, grid, block, shared);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* kernel, void**) {
    return launch(kernel, c->gridDim, c->blockDim, c->dynamicSmemBytes);
}
API cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    std::lock_guard<std::mutex> lock(state().mutex);
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (static_cast<size_t>(value) > limits.shared_optin()) return failed(cudaErrorInvalidValue);
        state().shared[kernel] = static_cast<size_t>(value);
    }
    return cudaSuccess;
}
API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void*) {
    std::memset(a, 0, sizeof(*a));
    a->maxThreadsPerBlock = 1024, a->numRegs = 64;
    a->binaryVersion = a->ptxVersion = limits.capability;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) {
    *n = 1;
    return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) {
    *n = 1;
    return cudaSuccess;
}

// Devices.
API cudaError_t cudaGetDeviceCount(int* n) {
    *n = static_cast<int>(setting("DRY_RUN_DEVICES", 1));
    return cudaSuccess;
}
API cudaError_t cudaGetDevice(int* d) {
    *d = 0;
    return cudaSuccess;
}
API cudaError_t cudaSetDevice(int) { return cudaSuccess; }
API cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
API cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
API cudaError_t cudaDeviceReset() { return cudaSuccess; }
API cudaError_t cudaDeviceGetPCIBusId(char* id, int n, int) {
    std::snprintf(id, n, "0000:01:00.0");
    return cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return cudaSuccess;
}
API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr a, int) {
    switch (a) {
        case cudaDevAttrComputeCapabilityMajor:
            *value = limits.capability / 10;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = limits.capability % 10;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = 82;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = static_cast<int>(limits.shared_optin());
            break;
        case cudaDevAttrCooperativeLaunch:
            *value = 1;
            break;
        default:
            *value = 0;
    }
    return cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    std::memset(p, 0, sizeof(*p));
    std::strcpy(p->name, "no GPU, a dry run");
    p->major = limits.capability / 10, p->minor = limits.capability % 10;
    p->totalGlobalMem = limits.memory;
    p->multiProcessorCount = 82, p->warpSize = 32;
    p->sharedMemPerBlock = limits.shared, p->sharedMemPerBlockOptin = limits.shared_optin();
    p->sharedMemPerMultiprocessor = limits.shared_optin() + 1024;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 1536, p->regsPerBlock = 65536;
    p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    return cudaSuccess;
}
API cudaError_t cudaGetLastError() {
    const cudaError_t e = state().last;
    state().last = cudaSuccess;
    return e;
}
API cudaError_t cudaPeekAtLastError() { return state().last; }
API const char* cudaGetErrorString(cudaError_t e) {
    static thread_local char text[32];
    std::snprintf(text, sizeof(text), "CUDA error %d", static_cast<int>(e));
    return text;
}

// Memory.
static cudaError_t allocate(void** p, size_t bytes, bool device) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    if (device && s.used + bytes > limits.memory) return failed(cudaErrorMemoryAllocation);
    const size_t size = std::max<size_t>(bytes, 1);
    *p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*p == MAP_FAILED) return failed(cudaErrorMemoryAllocation);
    if (device) {
        s.blocks[static_cast<char*>(*p)] = size;
        s.used += size;
        s.peak = std::max(s.peak, s.used);
    }
    return cudaSuccess;
}
API cudaError_t cudaMalloc(void** p, size_t n) { return allocate(p, n, true); }
API cudaError_t cudaMallocManaged(void** p, size_t n, unsigned) { return allocate(p, n, true); }
API cudaError_t cudaMallocHost(void** p, size_t n) {
    *p = std::malloc(n);
    return *p ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}
API cudaError_t cudaHostAlloc(void** p, size_t n, unsigned) { return cudaMallocHost(p, n); }
API cudaError_t cudaFreeHost(void* p) {
    std::free(p);
    return cudaSuccess;
}
API cudaError_t cudaFree(void* p) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    const auto found = s.blocks.find(static_cast<char*>(p));
    if (!p) return cudaSuccess;
    if (found == s.blocks.end()) {
        say("free", "memory was freed that is none");
        return failed(cudaErrorInvalidValue);
    }
    munmap(p, found->second);
    s.used -= found->second;
    s.blocks.erase(found);
    return cudaSuccess;
}
API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    *total = limits.memory;
    *free = limits.memory - state().used;
    return cudaSuccess;
}
API cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, cudaMemLocation) { return cudaSuccess; }
API cudaError_t cudaHostRegister(void*, size_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaHostUnregister(void*) { return cudaSuccess; }
API cudaError_t cudaHostGetDevicePointer(void** d, void* h, unsigned) {
    *d = h;
    return cudaSuccess;
}
API cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) { return copy(d, s, n, "a copy"); }
API cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind, cudaStream_t) {
    return copy(d, s, n, "a copy");
}
API cudaError_t cudaMemcpyPeerAsync(void* d, int, const void* s, int, size_t n, cudaStream_t) {
    return copy(d, s, n, "a copy");
}
API cudaError_t cudaMemcpy2DAsync(void* d, size_t dp, const void* s, size_t sp, size_t w, size_t h, cudaMemcpyKind,
                                  cudaStream_t) {
    for (size_t i = 0; i < h; ++i)
        if (cudaError_t e =
                copy(static_cast<char*>(d) + i * dp, static_cast<const char*>(s) + i * sp, w, "a copy of rows"))
            return e;
    return cudaSuccess;
}
API cudaError_t cudaMemset(void* p, int v, size_t n) {
    {
        std::lock_guard<std::mutex> lock(state().mutex);
        if (n > behind(p)) {
            say("set", "memory was set beyond an allocation");
            return failed(cudaErrorInvalidValue);
        }
    }
    if (v) std::memset(p, v, n);  // zeros would only fill memory of the host: nobody asks for results
    return cudaSuccess;
}
API cudaError_t cudaMemsetAsync(void* p, int v, size_t n, cudaStream_t) { return cudaMemset(p, v, n); }

// Streams, events, graphs.
API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
    *s = static_cast<cudaStream_t>(handle());
    return cudaSuccess;
}
API cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
API cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* s) {
    *s = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
API cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode) { return cudaSuccess; }
API cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* g) {
    *g = static_cast<cudaGraph_t>(handle());
    return cudaSuccess;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
    *e = static_cast<cudaEvent_t>(handle());
    return cudaSuccess;
}
API cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
API cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t, unsigned long long) {
    *e = static_cast<cudaGraphExec_t>(handle());
    return cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* e, cudaGraph_t, unsigned long long) {
    *e = static_cast<cudaGraphExec_t>(handle());
    return cudaSuccess;
}
API cudaError_t cudaGraphExecUpdate(cudaGraphExec_t, cudaGraph_t, cudaGraphExecUpdateResultInfo* r) {
    std::memset(r, 0, sizeof(*r));
    return cudaSuccess;
}
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
API cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
API cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
API cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t f, void* data) {
    f(data);
    return cudaSuccess;
}

// cuBLAS.
static cublasStatus_t product(const char* name, int m, int n, int k, int lda, int ldb, int ldc) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    ++s.launches[name];
    if (m > 0 && n > 0 && k > 0 && lda > 0 && ldb > 0 && ldc >= m) return CUBLAS_STATUS_SUCCESS;
    say(name,
        std::string(name) + ": refused: " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
    return CUBLAS_STATUS_INVALID_VALUE;
}
API cublasStatus_t cublasCreate_v2(cublasHandle_t* h) {
    *h = static_cast<cublasHandle_t>(handle());
    return CUBLAS_STATUS_SUCCESS;
}
API cublasStatus_t cublasDestroy_v2(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }
API cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }
API cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
API cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) { return CUBLAS_STATUS_SUCCESS; }
API const char* cublasGetStatusString(cublasStatus_t) { return "refused"; }
API cublasStatus_t cublasSgemm_v2(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                  const float*, const float*, int lda, const float*, int ldb, const float*, float*,
                                  int ldc) {
    return product("cublasSgemm", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k, const void*,
                                const void*, cudaDataType, int lda, const void*, cudaDataType, int ldb, const void*,
                                void*, cudaDataType, int ldc, cublasComputeType_t, cublasGemmAlgo_t) {
    return product("cublasGemmEx", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                              const void*, const void*, cudaDataType, int lda, long long, const void*,
                                              cudaDataType, int ldb, long long, const void*, void*, cudaDataType,
                                              int ldc, long long, int, cublasComputeType_t, cublasGemmAlgo_t) {
    return product("cublasGemmStridedBatchedEx", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasGemmBatchedEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                       const void*, const void* const[], cudaDataType, int lda, const void* const[],
                                       cudaDataType, int ldb, const void*, void* const[], cudaDataType, int ldc, int,
                                       cublasComputeType_t, cublasGemmAlgo_t) {
    return product("cublasGemmBatchedEx", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasSgemmBatched(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                      const float*, const float* const[], int lda, const float* const[], int ldb,
                                      const float*, float* const[], int ldc, int) {
    return product("cublasSgemmBatched", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                                             const float*, const float*, int lda, long long, const float*, int ldb,
                                             long long, const float*, float*, int ldc, long long, int) {
    return product("cublasSgemmStridedBatched", m, n, k, lda, ldb, ldc);
}
API cublasStatus_t cublasStrsmBatched(cublasHandle_t, cublasSideMode_t, cublasFillMode_t, cublasOperation_t,
                                      cublasDiagType_t, int, int, const float*, const float* const[], int,
                                      float* const[], int, int) {
    return CUBLAS_STATUS_SUCCESS;
}
