#include "graph.h"

#include <algorithm>
#include <new>
#include <numeric>
#include <unordered_set>

#include "ggml-cpu.h"

namespace sdltx {

namespace {

struct Size {
    size_t nodes = 0, leafs = 0;
};

// Of the graph that computes `results`.
Size size_of(const std::vector<ggml_tensor*>& results) {
    Size size;
    std::unordered_set<const ggml_tensor*> seen;
    std::vector<const ggml_tensor*> open(results.begin(), results.end());
    while (!open.empty()) {
        const ggml_tensor* t = open.back();
        open.pop_back();
        if (!seen.insert(t).second) continue;
        ++(t->op == GGML_OP_NONE ? size.leafs : size.nodes);
        for (const ggml_tensor* source : t->src)
            if (source) open.push_back(source);
    }
    return size;
}

std::string mib(size_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

Graph::Graph(const Backend& backend, std::string what, Trace* trace)
    : backend_(backend), what_(std::move(what)), trace_(trace) {}

Graph::~Graph() {
    if (sched_) ggml_backend_sched_free(sched_);
}

// Inputs have their own buffer: the allocator may reuse an input's memory within a run, and most inputs are set only
// once.
ggml_tensor* Graph::input(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne) {
    ggml_tensor* t = ggml_new_tensor(inputs_arena_.context(), type, static_cast<int>(ne.size()), ne.begin());
    ggml_set_name(t, name.c_str());
    ggml_set_input(t);
    return t;
}

ggml_tensor* Graph::zeros(int64_t n) {
    if (!zeros_ || zeros_->ne[0] < n) zeros_ = input("zeros", GGML_TYPE_F32, {n});
    return ggml_view_1d(ctx(), zeros_, n, 0);
}

ggml_tensor* Graph::stage(ggml_tensor* t, const std::string& name) {
    ggml_set_name(t, name.c_str());
    if (trace_ && trace_->wants(name)) traced_.emplace_back(name, output(t, name));
    return t;
}

ggml_tensor* Graph::output(ggml_tensor* t, const std::string& name) {
    // A view of all of a tensor lies as that does; any other is copied.
    ggml_tensor* whole =
        t->view_src && t->view_offs == 0 && ggml_nbytes(t) == ggml_nbytes(t->view_src) ? t->view_src : t;
    const bool packed =
        ggml_is_contiguous(t) && t->type == GGML_TYPE_F32 && !whole->view_src && whole->op != GGML_OP_NONE;
    if (!packed) whole = t = ggml_cast(ctx(), t, GGML_TYPE_F32);
    ggml_set_name(t, name.c_str());
    ggml_set_output(t);
    ggml_set_output(whole);
    compute_next(t);
    return t;
}

// A view counts as a user of its tensor until somebody uses the view, so a result of writing into a view has to be used
// or the tensor would live to the end of the graph.
ggml_tensor* Graph::after(ggml_tensor* t, ggml_tensor* write) {
    ggml_tensor* written =
        ggml_view_4d(ctx(), t, t->ne[0], t->ne[1], t->ne[2], t->ne[3], t->nb[1], t->nb[2], t->nb[3], 0);
    written->src[1] = write;
    return written;
}

void Graph::link() {
    const Size size = size_of(order_);
    size_ = size.nodes + size.leafs;
    const size_t capacity = std::max(size.nodes, size.leafs) + 1;
    graph_memory_.resize(ggml_graph_overhead_custom(capacity, false) + ggml_tensor_overhead());
    graph_ctx_.reset(ggml_init({graph_memory_.size(), graph_memory_.data(), /*no_alloc=*/true}));
    graph_ = ggml_new_graph_custom(graph_ctx_.get(), capacity, false);
    for (ggml_tensor* t : order_) ggml_build_forward_expand(graph_, t);
}

void Graph::measure() {
    link();
    // The scheduler does not look at what its own allocations return; they come to less than this, mostly untouched.
    const size_t tables = size_ * (60 * sizeof(ggml_tensor) + 2048);
    ::operator delete(::operator new(tables));
    std::vector<ggml_backend_t> backends = backend_.backends();
    sched_ = ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), size_, false, true);
    inputs_ = backend_.allocate(inputs_arena_, what_);
    for (auto& b : inputs_) {
        ggml_backend_buffer_set_usage(b.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        ggml_backend_buffer_clear(b.get(), 0);
        inputs_bytes_ += ggml_backend_buffer_get_size(b.get());
    }
    reserved_.assign(backends.size(), 0);
    ggml_backend_sched_reserve_size(sched_, graph_, reserved_.data());
    if (backend_.uses_host_memory()) reserved_.back() += ggml_graph_plan(graph_, backend_.threads(), nullptr).work_size;
}

void Graph::finish() {
    measure();
    const auto refuse = [&](const std::string& why) {
        throw Error(ErrorCode::out_of_memory,
                    "[" + what_ + "] " + why + "; ask for a smaller picture, fewer frames or smaller tiles");
    };
    for (size_t i = 0; i < reserved_.size(); ++i) {
        const size_t left = backend_.available_memory(i);
        if (reserved_[i] > left)
            refuse("needs " + mib(reserved_[i]) + " of working memory on " + backend_.device_name(i) + ", " +
                   mib(left) + " are free");
    }
    if (!ggml_backend_sched_reserve(sched_, graph_) || !ggml_backend_sched_alloc_graph(sched_, graph_))
        refuse("not enough memory on " + backend_.device_name());
}

size_t Graph::memory() const { return std::accumulate(reserved_.begin(), reserved_.end(), inputs_bytes_); }

void Graph::set(ggml_tensor* input, const void* data, size_t bytes) {
    if (bytes != ggml_nbytes(input))
        throw Error(ErrorCode::invalid_request, "[" + what_ + "] input '" + ggml_get_name(input) + "' takes " +
                                                    std::to_string(ggml_nbytes(input)) + " bytes, got " +
                                                    std::to_string(bytes));
    ggml_backend_tensor_set(input, data, 0, bytes);
}

void Graph::run() {
    const ggml_status status = backend_.compute(sched_, graph_);
    if (status == GGML_STATUS_ABORTED) throw Error(ErrorCode::cancelled, "[" + what_ + "] stopped");
    if (status == GGML_STATUS_ALLOC_FAILED)
        throw Error(ErrorCode::out_of_memory, "[" + what_ + "] the memory for an operation's scratch is not available");
    if (status != GGML_STATUS_SUCCESS)
        throw Error(ErrorCode::backend, "[" + what_ + "] the computation failed on " + backend_.device_name());
    for (auto& [name, t] : traced_) {
        Array& a = trace_->tensors[name];
        a.data = get(t);
        a.shape.clear();
        for (int d = ggml_n_dims(t) - 1; d >= 0; --d) a.shape.push_back(t->ne[d]);
    }
}

std::vector<float> Graph::get(const ggml_tensor* output) const {
    std::vector<float> values(static_cast<size_t>(ggml_nelements(output)));
    get(output, values.data());
    return values;
}

void Graph::get(const ggml_tensor* output, float* values) const {
    ggml_backend_tensor_get(output, values, 0, ggml_nbytes(output));
}

}  // namespace sdltx
