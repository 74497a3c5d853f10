// One compute graph: built once per shape, run many times.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "backend.h"
#include "types.h"

namespace sdltx {

class Graph {
 public:
    // `what` names the graph in errors; `trace` (may be null) receives the stages it asks for on every run.
    Graph(const Backend& backend, std::string what, Trace* trace, size_t max_nodes);
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    const Backend& backend() const { return backend_; }
    ggml_context* ctx() const { return ctx_.get(); }

    // --- building ---
    // A tensor whose value is set from the host and stays until it is set again.
    ggml_tensor* input(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne);
    // Gives `t` the name of a stage of the reference; returns t.
    ggml_tensor* stage(ggml_tensor* t, const std::string& name);
    // A result that can be read after run(); returns a tensor with rows packed.
    ggml_tensor* output(ggml_tensor* t, const std::string& name);
    // Reserves memory. Throws Error(out_of_memory). After this the graph is fixed.
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
    // Bytes of working memory over all devices.
    size_t memory() const;

 private:
    const Backend& backend_;
    std::string what_;
    Trace* trace_;
    size_t max_nodes_;
    TensorContext ctx_, inputs_ctx_;
    Buffer inputs_;
    ggml_cgraph* graph_;
    ggml_backend_sched_t sched_ = nullptr;
    std::vector<std::pair<std::string, ggml_tensor*>> traced_;
};

}  // namespace sdltx
