#include "plan.h"

#include <algorithm>
#include <unordered_set>

namespace sdltx {

Plan::Plan(const Backend& backend, std::string what, Trace* trace, size_t device)
    : backend_(backend), what_(std::move(what)), trace_(trace), device_(device), inputs_(backend, what_, device) {}

const std::vector<Delta>& Plan::deltas(const ggml_tensor* weight) const {
    static const std::vector<Delta> none;
    if (!deltas_) return none;
    const auto found = deltas_->find(weight);
    return found == deltas_->end() ? none : found->second;
}

ggml_tensor* Plan::adjusted(ggml_tensor* weight) {
    ggml_tensor* sum = weight;
    for (const Delta& d : deltas(weight))
        sum = ggml_add(ctx(), sum, d.scale == 1 ? d.whole : ggml_scale(ctx(), d.whole, d.scale));
    return sum;
}

ggml_tensor* Plan::zeros(int64_t n) {
    if (!zeros_ || zeros_->ne[0] < n) zeros_ = input("zeros", GGML_TYPE_F32, {n});
    return ggml_view_1d(ctx(), zeros_, n, 0);
}

namespace {

void compute_share(ggml_tensor* dst, int index, int count, void* compute) {
    (*static_cast<Plan::Compute*>(compute))(dst, {index, count});
}

}  // namespace

ggml_tensor* Plan::computed(ggml_type type, std::array<int64_t, 4> ne, const std::vector<ggml_tensor*>& sources,
                            Compute compute) {
    std::vector<ggml_tensor*> args(sources);
    computes_.push_back(std::move(compute));
    return ggml_custom_4d(ctx(), type, ne[0], ne[1], ne[2], ne[3], args.data(), static_cast<int>(args.size()),
                          compute_share, GGML_N_TASKS_MAX, &computes_.back());
}

ggml_tensor* Plan::computed_in(ggml_tensor* view, const std::vector<ggml_tensor*>& sources, Compute compute) {
    std::vector<ggml_tensor*> args(sources);
    computes_.push_back(std::move(compute));
    return ggml_custom_inplace(ctx(), view, args.data(), static_cast<int>(args.size()), compute_share, GGML_N_TASKS_MAX,
                               &computes_.back());
}

ggml_tensor* Plan::stage(ggml_tensor* t, const std::string& name) {
    ggml_set_name(t, name.c_str());
    if (trace_ && trace_->wants(name)) traced_.emplace_back(name, output(t, name));
    return t;
}

ggml_tensor* Plan::output(ggml_tensor* t, const std::string& name) {
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
ggml_tensor* Plan::after(ggml_tensor* t, ggml_tensor* write) {
    ggml_tensor* written =
        ggml_view_4d(ctx(), t, t->ne[0], t->ne[1], t->ne[2], t->ne[3], t->nb[1], t->nb[2], t->nb[3], 0);
    written->src[1] = write;
    return written;
}

void Plan::link() {
    if (graph_) return;
    // An earlier attempt may have had no memory.
    nodes_.clear();
    leafs_.clear();
    sources_.clear();
    std::unordered_set<const ggml_tensor*> seen;
    std::vector<ggml_tensor*> open(order_);
    while (!open.empty()) {
        ggml_tensor* t = open.back();
        open.pop_back();
        if (!seen.insert(t).second) continue;
        (t->op == GGML_OP_NONE ? leafs_ : nodes_).push_back(t);
        for (ggml_tensor* source : t->src)
            if (source) open.push_back(source);
    }
    // Kernels of devices count elements with 32 bits.
    if (!backend_.uses_host_memory())
        for (const auto* list : {&nodes_, &leafs_})
            for (const ggml_tensor* t : *list)
                if (ggml_nelements(t) > INT32_MAX)
                    throw Error(ErrorCode::out_of_memory, "[" + what_ + "] a step of it has " +
                                                              std::to_string(ggml_nelements(t)) + " values, and " +
                                                              backend_.device_name(device_) +
                                                              " takes 2147483647 at a time; use smaller tiles or a "
                                                              "smaller picture");
    const size_t capacity = std::max(nodes_.size(), leafs_.size()) + 1;
    graph_memory_.resize(ggml_graph_overhead_custom(capacity, false) + ggml_tensor_overhead());
    graph_ctx_.reset(ggml_init({graph_memory_.size(), graph_memory_.data(), /*no_alloc=*/true}));
    ggml_cgraph* graph = ggml_new_graph_custom(graph_ctx_.get(), capacity, false);
    for (ggml_tensor* t : order_) ggml_build_forward_expand(graph, t);
    std::copy_n(ggml_graph_nodes(graph), nodes_.size(), nodes_.begin());  // in their order
    for (const ggml_tensor* node : nodes_) {
        Sources& sources = sources_.emplace_back();
        std::copy_n(node->src, sources.size(), sources.begin());
    }
    structure_ = structure();
    graph_ = graph;
}

// Of all that a place in memory depends on. Never 0.
uint64_t Plan::structure() const {
    uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&](uint64_t value) {
        hash = (hash ^ value) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    };
    std::unordered_map<const ggml_tensor*, uint64_t> numbers;
    for (const auto* list : {&leafs_, &nodes_})
        for (const ggml_tensor* t : *list) numbers.emplace(t, numbers.size() + 1);
    const auto number_of = [&](const ggml_tensor* t) {
        const auto found = numbers.find(t);
        return found == numbers.end() ? uint64_t{0} : found->second;
    };
    add(device_);
    add(leafs_.size());
    for (const auto* list : {&leafs_, &nodes_})
        for (const ggml_tensor* t : *list) {
            add(static_cast<uint64_t>(t->op) << 40 | static_cast<uint64_t>(t->type) << 32 |
                static_cast<uint32_t>(t->flags));
            for (const int64_t n : t->ne) add(static_cast<uint64_t>(n));
            add(number_of(t->view_src));
            for (const ggml_tensor* source : t->src) add(number_of(source));
        }
    return hash | 1;
}

size_t Plan::description() const {
    size_t bytes = graph_memory_.size() + nodes_.size() * (sizeof(Sources) + 2 * sizeof(void*));
    for (ggml_context* ctx : arena_.contexts()) bytes += ggml_used_mem(ctx);
    return bytes;
}

void Plan::detach() {
    if (!graph_) return;
    // Some devices put operations into an order of their own, which would be put into another one the next time.
    std::copy(nodes_.begin(), nodes_.end(), ggml_graph_nodes(graph_));
    for (size_t i = 0; i < nodes_.size(); ++i) {
        nodes_[i]->data = nullptr;
        nodes_[i]->buffer = nullptr;
        std::copy(sources_[i].begin(), sources_[i].end(), nodes_[i]->src);
    }
}

void Plan::collect_traced() {
    for (auto& [name, t] : traced_) {
        ++trace_->runs[name];
        Array& a = trace_->tensors[name];
        a.data = get(t);
        a.shape.clear();
        for (int d = ggml_n_dims(t) - 1; d >= 0; --d) a.shape.push_back(t->ne[d]);
    }
}

std::vector<float> Plan::get(const ggml_tensor* output) const {
    std::vector<float> values(static_cast<size_t>(ggml_nelements(output)));
    get(output, values.data());
    return values;
}

void Plan::get(const ggml_tensor* output, float* values) const {
    ggml_backend_tensor_get(output, values, 0, ggml_nbytes(output));
}

void Plan::get(const ggml_tensor* output, size_t first, size_t count, float* values) const {
    ggml_backend_tensor_get(output, values, first * sizeof(float), count * sizeof(float));
}

}  // namespace sdltx
