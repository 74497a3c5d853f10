// Tensors that outlive a plan: set from the host or written by one plan, read by others.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "arena.h"
#include "backend.h"

namespace sdltx {

class State {
 public:
    // On backend.backends()[device]; `what` names the owner in errors.
    State(const Backend& backend, std::string what, size_t device = 0)
        : backend_(backend), what_(std::move(what)), device_(device) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    // A tensor that keeps its value until it is set again; zeros at first.
    ggml_tensor* tensor(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne);
    // Gives memory to the tensors that have none yet; set() does it too. Throws Error(out_of_memory).
    void allocate();
    // Throws Error(invalid_request) when the sizes differ.
    void set(ggml_tensor* t, const void* data, size_t bytes);
    void set(ggml_tensor* t, const std::vector<float>& values) { set(t, values.data(), values.size() * sizeof(float)); }
    void set(ggml_tensor* t, const std::vector<int32_t>& values) {
        set(t, values.data(), values.size() * sizeof(int32_t));
    }

    // Bytes of all tensors, whether they have their memory or not.
    size_t size() const { return size_; }

 private:
    const Backend& backend_;
    std::string what_;
    size_t device_;
    TensorArena arena_;
    std::vector<ggml_tensor*> without_memory_;
    std::vector<Buffer> buffers_;
    size_t size_ = 0;
};

}  // namespace sdltx
