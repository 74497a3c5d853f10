#include "workspace.h"

#include <algorithm>
#include <new>

#include "cpu_kernels.h"
#include "model_file.h"

namespace sdltx {

namespace {

std::string mib(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

// Makes the allocator believe that tensors without memory have some.
class Pretence {
 public:
    Pretence(const std::vector<ggml_tensor*>& leafs, ggml_backend_buffer_type_t type)
        : nowhere_(ggml_backend_buft_alloc_buffer(type, 0)) {
        if (!nowhere_) throw std::bad_alloc();
        ggml_backend_buffer_set_usage(nowhere_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        pretended_.reserve(leafs.size());
        for (ggml_tensor* t : leafs)
            if (!t->data) {
                t->data = this;  // never read or written
                t->buffer = nowhere_.get();
                pretended_.push_back(t);
            }
    }
    ~Pretence() {
        for (ggml_tensor* t : pretended_) {
            t->data = nullptr;
            t->buffer = nullptr;
        }
    }

 private:
    Buffer nowhere_;
    std::vector<ggml_tensor*> pretended_;
};

// The most that ggml's CUDA kernels take for themselves at a time: values in another type for a product, and what
// cuBLAS and attention take whatever the sizes. Their pool asks for 5 % more than it needs, keeps it for the next
// operation, and ends the process when it does not get it.
size_t kernel_memory_of(ggml_cgraph* graph) {
    constexpr size_t always = size_t{96} << 20;
    double most = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_MUL_MAT || node->src[0]->type == GGML_TYPE_F32) continue;
        double bytes = 2.0 * static_cast<double>(ggml_nelements(node->src[1]) + ggml_nelements(node));
        // Weights in half precision are multiplied as floats, where sums are to be kept as such: see product().
        const auto weights = static_cast<double>(ggml_nelements(node->src[0]));
        if (node->src[0]->type == GGML_TYPE_F16)
            bytes += 4.0 * weights;
        else if (ggml_is_quantized(node->src[0]->type))
            bytes += 2.0 * weights;
        most = std::max(most, bytes);
    }
    return always + static_cast<size_t>(1.05 * most);
}

// The same of its Vulkan kernels: the other factor of a product in half precision, and partial sums of small results.
// Where they do not get it that is an error, so nothing is added for safety.
size_t vulkan_kernel_memory_of(ggml_cgraph* graph) {
    constexpr size_t partial_sums = size_t{32} << 20;
    int64_t most = 0;
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i)
        if (const ggml_tensor* node = ggml_graph_node(graph, i); node->op == GGML_OP_MUL_MAT)
            most = std::max(most, ggml_nelements(node->src[1]));
    return partial_sums + 2 * static_cast<size_t>(most);
}

}  // namespace

size_t MemoryUse::total() const {
    size_t bytes = host;
    for (const auto* kind : {&working, &inputs})
        for (size_t of_device : *kind) bytes += of_device;
    return bytes;
}

void MemoryUse::also(const MemoryUse& other) {
    if (working.size() <= 1 && other.working.size() <= 1) {  // what is short is one memory
        if (other.total() > total()) *this = other;
        return;
    }
    const auto most = [](std::vector<size_t>& to, const std::vector<size_t>& from) {
        to.resize(std::max(to.size(), from.size()));
        for (size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
    };
    most(working, other.working);
    most(inputs, other.inputs);
    host = std::max(host, other.host);
}

void Workspace::make_scheduler(size_t size) {
    if (scheduler_ && size <= scheduler_size_) return;
    scheduler_.reset();
    std::vector<ggml_backend_t> backends = backend_.backends();
    scheduler_.reset(
        ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), size, false, true));
    scheduler_size_ = size;
}

std::vector<size_t> Workspace::measure(Plan& plan) {
    backend_.poll();
    lay_out(plan);
    std::vector<size_t> bytes = plan.working_;
    bytes[plan.device_] += plan.kernel_memory_;
    return bytes;
}

MemoryUse Workspace::measure_all(Plan& plan) {
    MemoryUse use{measure(plan), std::vector<size_t>(backend_.backends().size()), plan.description()};
    use.inputs[plan.device()] = plan.inputs().size();
    return use;
}

void Workspace::lay_out(Plan& plan) {
    if (!plan.working_.empty()) return;
    plan.link();
    check_sizes(plan);
    last_ = 0;
    make_scheduler(plan.nodes_.size() + plan.leafs_.size());
    std::vector<size_t> working(backend_.backends().size());
    try {
        const Pretence pretence(plan.leafs_, backend_.buffer_type(plan.device_));
        ggml_backend_sched_reserve_size(scheduler_.get(), plan.graph_, working.data());
    } catch (...) {
        plan.detach();
        release();
        throw;
    }
    plan.detach();
    plan.working_ = std::move(working);
    if (backend_.uses_host_memory())
        plan.working_.back() += cpu_kernels().plan(plan.graph_, backend_.threads(), nullptr).work_size;
    if (backend_.is_gpu(plan.device_))
        plan.kernel_memory_ =
            backend_.multiplies_halves() ? vulkan_kernel_memory_of(plan.graph_) : kernel_memory_of(plan.graph_);
}

// ggml ends the process when what lies on a device is larger than its operations take.
void Workspace::check_sizes(const Plan& plan) const {
    if (backend_.uses_host_memory()) return;
    for (const ggml_tensor* t : plan.leafs_)
        if (!backend_.can(plan.device_, t))
            throw Error(ErrorCode::backend, "[" + plan.what() + "] " + backend_.device_name(plan.device_) +
                                                " does not take '" + ggml_get_name(t) + "' of " + mib(ggml_nbytes(t)) +
                                                "; use another device, or the CPU");
}

void Workspace::check_memory(const Plan& plan) {
    const std::vector<size_t> here = held();
    kernel_memory_.resize(here.size());
    for (size_t i = 0; i < here.size(); ++i) {
        const size_t kernels = i == plan.device_ ? plan.kernel_memory_ : 0,
                     more = kernels - std::min(kernels, kernel_memory_[i]);
        if (plan.working_[i] <= here[i] && more == 0) continue;
        // What is held is given back before more is taken.
        const size_t left = backend_.available_memory(i), most = left > SIZE_MAX - here[i] ? left : left + here[i];
        const size_t needed = std::max(plan.working_[i], here[i]) + more;
        if (needed > most)
            throw Error(ErrorCode::out_of_memory,
                        "[" + plan.what() + "] needs " + mib(needed) + " of working memory on " +
                            backend_.device_name(i) + ", " + mib(most) +
                            " are free; ask for a smaller picture, fewer frames or smaller tiles");
        kernel_memory_[i] += more;
    }
}

void Workspace::run(Plan& plan, const std::function<void()>& meanwhile) {
    try {
        run_placed(plan, meanwhile);
    } catch (const Error& e) {
        // The scheduler stopped somewhere.
        if (e.code() != ErrorCode::cancelled) release();
        throw;
    } catch (...) {
        release();
        throw;
    }
}

void Workspace::run_placed(Plan& plan, const std::function<void()>& meanwhile) {
    backend_.poll();
    plan.inputs_.allocate();
    lay_out(plan);
    plan.detach();
    check_memory(plan);
    make_scheduler(plan.nodes_.size() + plan.leafs_.size());
    ggml_backend_sched_reset(scheduler_.get());
    // The allocator tells graphs apart by their sizes only, so it is told when one of another structure comes.
    bool placed = true;
    if (plan.structure_ != last_) {
        placed = ggml_backend_sched_reserve(scheduler_.get(), plan.graph_);
        plan.detach();
    }
    last_ = plan.structure_;
    if (!placed || !ggml_backend_sched_alloc_graph(scheduler_.get(), plan.graph_)) {
        release();
        throw Error(ErrorCode::out_of_memory, "[" + plan.what() + "] not enough memory on " + backend_.device_names() +
                                                  "; ask for a smaller picture, fewer frames or smaller tiles");
    }
    if (!backend_.uses_host_memory()) backend_.note_working(held());
    const ggml_status status = backend_.compute(scheduler_.get(), plan.graph_, meanwhile);
    if (status == GGML_STATUS_ABORTED) throw Error(ErrorCode::cancelled, "[" + plan.what() + "] stopped");
    if (status == GGML_STATUS_ALLOC_FAILED)
        throw Error(ErrorCode::out_of_memory,
                    "[" + plan.what() + "] the memory for an operation's scratch is not available");
    if (status != GGML_STATUS_SUCCESS)
        throw Error(ErrorCode::backend, "[" + plan.what() + "] the computation failed on " + backend_.device_names());
    for (const ggml_tensor* t : plan.leafs_) check_mapped(t->data);
    plan.collect_traced();
}

void Workspace::release() {
    if (backend_.computing()) return;
    scheduler_.reset();
    scheduler_size_ = 0;
    last_ = 0;
    kernel_memory_.clear();
    backend_.note_working({});
}

std::vector<size_t> Workspace::held() const {
    std::vector<size_t> bytes;
    for (ggml_backend_t b : backend_.backends())
        bytes.push_back(scheduler_ ? ggml_backend_sched_get_buffer_size(scheduler_.get(), b) : 0);
    return bytes;
}

}  // namespace sdltx
