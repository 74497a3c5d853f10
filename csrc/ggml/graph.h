// One compute graph: built once per shape, run many times.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "arena.h"
#include "backend.h"
#include "types.h"

namespace sdltx {

class Graph {
 public:
    // `what` names the graph in errors; `trace` (may be null) receives the stages it asks for on every run.
    Graph(const Backend& backend, std::string what, Trace* trace);
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    const Backend& backend() const { return backend_; }
    // Where to make the next nodes; see TensorArena::context().
    ggml_context* ctx() { return arena_.context(); }

    // --- building ---
    // A tensor whose value is set from the host and stays until it is set again; zeros at first.
    ggml_tensor* input(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne);
    // A row of n zeros.
    ggml_tensor* zeros(int64_t n);
    // Gives `t` the name of a stage of the reference; returns t.
    ggml_tensor* stage(ggml_tensor* t, const std::string& name);
    // A result that can be read after run(); returns a tensor with rows packed.
    ggml_tensor* output(ggml_tensor* t, const std::string& name);
    // Computes `t`, and what it needs, before everything that is asked for later.
    void compute_next(ggml_tensor* t) { order_.push_back(t); }
    // `t` as it is once `write`, an operation on a view of it, has been computed.
    ggml_tensor* after(ggml_tensor* t, ggml_tensor* write);
    // Fixes the graph, takes memory for the inputs and computes memory(). The weights need to be loaded.
    void measure();
    // measure(), then reserves memory. Throws Error(out_of_memory) when the device or the machine has too little.
    void finish();

    // --- running ---
    void set(ggml_tensor* input, const void* data, size_t bytes);
    void set(ggml_tensor* input, const std::vector<float>& values) {
        set(input, values.data(), values.size() * sizeof(float));
    }
    void set(ggml_tensor* input, const std::vector<int32_t>& values) {
        set(input, values.data(), values.size() * sizeof(int32_t));
    }
    // Throws Error(backend) when a device fails.
    void run();
    // Values of an output, float32, fastest axis first.
    std::vector<float> get(const ggml_tensor* output) const;
    void get(const ggml_tensor* output, float* values) const;
    // Bytes of working memory over all devices: inputs, what finish() reserves, and scratch of operations.
    size_t memory() const;

 private:
    void link();

    const Backend& backend_;
    std::string what_;
    Trace* trace_;
    TensorArena arena_, inputs_arena_;
    ggml_tensor* zeros_ = nullptr;     // the longest row asked for
    std::vector<ggml_tensor*> order_;  // what is computed, in this order
    std::vector<Buffer> inputs_;
    std::vector<char> graph_memory_;
    TensorContext graph_ctx_;
    ggml_cgraph* graph_ = nullptr;
    ggml_backend_sched_t sched_ = nullptr;
    size_t size_ = 0;               // nodes and leafs
    size_t inputs_bytes_ = 0;       // on the device
    std::vector<size_t> reserved_;  // bytes on each backend, scratch included
    std::vector<std::pair<std::string, ggml_tensor*>> traced_;
};

}  // namespace sdltx
