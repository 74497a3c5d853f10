// A graph to run, with its inputs. It holds no memory to compute in: a Workspace lends it while it runs.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <initializer_list>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/types.h"
#include "kernels/kernels.h"
#include "state.h"

namespace sdltx {

// What is added to a weight while it is used, times `scale`: to a matrix b a, or `whole`; to a row or a table `whole`.
struct Delta {
    ggml_tensor *a = nullptr, *b = nullptr;  // [in, rank], [rank, out]
    ggml_tensor* whole = nullptr;            // as the weight
    float scale = 1;
};
using Deltas = std::unordered_map<const ggml_tensor*, std::vector<Delta>>;  // by weight

class Plan {
 public:
    // To run on backend.backends()[device], where its weights and states are; `what` names the plan in errors; `trace`
    // (may be null) receives the stages it asks for on every run.
    Plan(const Backend& backend, std::string what, Trace* trace, size_t device = 0);

    const Backend& backend() const { return backend_; }
    const std::string& what() const { return what_; }
    // Which of the backends it runs on.
    size_t device() const { return device_; }
    // Where to make the next nodes; see TensorArena::context().
    ggml_context* ctx() { return arena_.context(); }

    // --- building ---
    // A tensor whose value is set from the host and stays until it is set again; zeros at first.
    ggml_tensor* input(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne) {
        return inputs_.tensor(name, type, ne);
    }
    // What is added to weights from now on; it must outlive the building. Null: nothing.
    void set_deltas(const Deltas* deltas) { deltas_ = deltas; }
    const std::vector<Delta>& deltas(const ggml_tensor* weight) const;
    // A row or a table of weights with what is added to it; null stays null.
    ggml_tensor* adjusted(ggml_tensor* weight);
    // A row of n zeros.
    ggml_tensor* zeros(int64_t n);
    // What a node of ours computes: each thread does its share of writing `dst` from dst->src.
    using Compute = std::function<void(ggml_tensor* dst, Share share)>;
    // A new tensor that `compute` fills. Only on host memory.
    ggml_tensor* computed(ggml_type type, std::array<int64_t, 4> ne, const std::vector<ggml_tensor*>& sources,
                          Compute compute);
    // The same for a view of a tensor that is there; its sources are dst->src[1] and so on. Returns the view.
    ggml_tensor* computed_in(ggml_tensor* view, const std::vector<ggml_tensor*>& sources, Compute compute);
    // What was made of `t` for all who need it in another form; null at first.
    ggml_tensor*& made_of(const ggml_tensor* t) { return made_of_[t]; }
    // Gives `t` the name of a stage of the reference; returns t.
    ggml_tensor* stage(ggml_tensor* t, const std::string& name);
    // A result that can be read after a run, until the next one of any plan; returns a tensor with rows packed.
    ggml_tensor* output(ggml_tensor* t, const std::string& name);
    // Leaves the value of `t` in `to`, a tensor of a State, for other plans.
    void store(ggml_tensor* t, ggml_tensor* to) { compute_next(ggml_cpy(ctx(), t, to)); }
    // Computes `t`, and what it needs, before everything that is asked for later.
    void compute_next(ggml_tensor* t) { order_.push_back(t); }
    // `t` as it is once `write`, an operation on a view of it, has been computed.
    ggml_tensor* after(ggml_tensor* t, ggml_tensor* write);

    // --- running ---
    template <typename Values>
    void set(ggml_tensor* input, const Values& values) {
        inputs_.set(input, values);
    }
    void set(ggml_tensor* input, const void* data, size_t bytes) { inputs_.set(input, data, bytes); }
    // Values of an output, float32, fastest axis first.
    std::vector<float> get(const ggml_tensor* output) const;
    void get(const ggml_tensor* output, float* values) const;
    // `count` of them from `first` on.
    void get(const ggml_tensor* output, size_t first, size_t count, float* values) const;

    State& inputs() { return inputs_; }
    // Bytes of its own description, once it has been measured or run.
    size_t description() const;

 private:
    friend class Workspace;
    using Sources = std::array<ggml_tensor*, GGML_MAX_SRC>;

    // Fixes the graph. What is built afterwards does not count.
    void link();
    uint64_t structure() const;
    // Takes back the places in a workspace, the order, and the detours over other devices, that an earlier run has put
    // in.
    void detach();
    void collect_traced();

    const Backend& backend_;
    std::string what_;
    Trace* trace_;
    const Deltas* deltas_ = nullptr;
    size_t device_;
    TensorArena arena_;
    State inputs_;
    ggml_tensor* zeros_ = nullptr;  // the longest row asked for
    std::unordered_map<const ggml_tensor*, ggml_tensor*> made_of_;
    std::deque<Compute> computes_;     // stay where they are
    std::vector<ggml_tensor*> order_;  // what is computed, in this order
    std::vector<std::pair<std::string, ggml_tensor*>> traced_;

    std::vector<char> graph_memory_;
    TensorContext graph_ctx_;
    ggml_cgraph* graph_ = nullptr;
    std::vector<ggml_tensor*> nodes_, leafs_;
    std::vector<Sources> sources_;  // of the nodes
    uint64_t structure_ = 0;        // plans of the same one, such as a network's blocks, are laid out alike
    std::vector<size_t> working_;   // bytes on each backend, scratch included, once they are known
    size_t kernel_memory_ = 0;      // bytes that the kernels of its device take for themselves, at most
};

}  // namespace sdltx
