#include "graph.h"

#include <cstring>

namespace sdltx {

Graph::Graph(const Backend& backend, std::string what, Trace* trace, size_t max_nodes)
    : backend_(backend), what_(std::move(what)), trace_(trace), max_nodes_(max_nodes) {
    const size_t bytes = ggml_tensor_overhead() * max_nodes * 2 + ggml_graph_overhead_custom(max_nodes, false);
    ctx_.reset(ggml_init({bytes, nullptr, /*no_alloc=*/true}));
    if (!ctx_) throw Error(ErrorCode::out_of_memory, "[" + what_ + "] no memory for the graph");
    // Inputs have their own buffer: the allocator may reuse an input's memory within a run, and most inputs are set
    // only once.
    inputs_ctx_ = make_tensor_context(256);
    graph_ = ggml_new_graph_custom(ctx(), max_nodes, false);
}

Graph::~Graph() {
    if (sched_) ggml_backend_sched_free(sched_);
}

ggml_tensor* Graph::input(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne) {
    ggml_tensor* t = ggml_new_tensor(inputs_ctx_.get(), type, static_cast<int>(ne.size()), ne.begin());
    ggml_set_name(t, name.c_str());
    ggml_set_input(t);
    return t;
}

ggml_tensor* Graph::stage(ggml_tensor* t, const std::string& name) {
    ggml_set_name(t, name.c_str());
    if (trace_ && trace_->wants(name)) traced_.emplace_back(name, output(t, name));
    return t;
}

ggml_tensor* Graph::output(ggml_tensor* t, const std::string& name) {
    ggml_tensor* packed =
        ggml_is_contiguous(t) && t->type == GGML_TYPE_F32 && !t->view_src ? t : ggml_cast(ctx(), t, GGML_TYPE_F32);
    ggml_set_name(packed, name.c_str());
    ggml_set_output(packed);
    ggml_build_forward_expand(graph_, packed);
    return packed;
}

void Graph::finish() {
    inputs_ = backend_.allocate(inputs_ctx_.get(), what_);
    if (inputs_) ggml_backend_buffer_set_usage(inputs_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    std::vector<ggml_backend_t> backends = backend_.backends();
    sched_ =
        ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), max_nodes_, false, true);
    if (!sched_ || !ggml_backend_sched_alloc_graph(sched_, graph_))
        throw Error(ErrorCode::out_of_memory,
                    "[" + what_ + "] not enough memory on " + backend_.device_name() +
                        " for this size; ask for a smaller picture, fewer frames or smaller tiles");
}

void Graph::set(ggml_tensor* input, const void* data, size_t bytes) {
    if (bytes != ggml_nbytes(input))
        throw Error(ErrorCode::invalid_request, "[" + what_ + "] input '" + ggml_get_name(input) + "' takes " +
                                                    std::to_string(ggml_nbytes(input)) + " bytes, got " +
                                                    std::to_string(bytes));
    ggml_backend_tensor_set(input, data, 0, bytes);
}

void Graph::run() {
    const ggml_status status = ggml_backend_sched_graph_compute(sched_, graph_);
    if (status == GGML_STATUS_ABORTED) throw Error(ErrorCode::cancelled, "[" + what_ + "] stopped");
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
    ggml_backend_tensor_get(output, values.data(), 0, values.size() * sizeof(float));
    return values;
}

size_t Graph::memory() const {
    size_t bytes = inputs_ ? ggml_backend_buffer_get_size(inputs_.get()) : 0;
    for (ggml_backend_t b : backend_.backends()) bytes += ggml_backend_sched_get_buffer_size(sched_, b);
    return bytes;
}

}  // namespace sdltx
