// The memory that plans compute in: one for all plans of a pipeline, as large as the largest of them.
#pragma once

#include <functional>
#include <vector>

#include "plan.h"

namespace sdltx {

// Bytes that something takes while it runs, without weights.
struct MemoryUse {
    std::vector<size_t> working;  // on each of the backends
    std::vector<size_t> inputs;   // of them, of values that live through it
    size_t host = 0;              // of values on their way, in plain memory

    size_t total() const;
    // For what comes after each other: the larger of both.
    void also(const MemoryUse& other);
};

class Workspace {
 public:
    explicit Workspace(const Backend& backend) : backend_(backend) {}
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    const Backend& backend() const { return backend_; }

    // Bytes that `plan` takes on each of backend().backends() while it runs, scratch of operations included (of GPUs at
    // most so much); its inputs are not. Nothing is allocated, and the weights need not be there. Throws Error(busy)
    // when a plan is running.
    std::vector<size_t> measure(Plan& plan);
    // The same with its inputs.
    MemoryUse measure_all(Plan& plan);
    // Runs `plan`. `meanwhile` is called while the device is at work, or before it where the host computes itself.
    // Throws Error(cancelled) when the backend's poll says so, before or, on the CPU, in between; Error(out_of_memory)
    // when the memory is not there; Error(backend) when a device fails; Error(busy) when a plan is running.
    void run(Plan& plan, const std::function<void()>& meanwhile = {});
    // Gives the memory back, what was asked for the kernels of devices included, and with it the outputs of the last
    // plan; not while a plan is running.
    void release();
    // Bytes held on each of backend().backends(), scratch not counted.
    std::vector<size_t> held() const;

 private:
    struct SchedulerDeleter {
        void operator()(ggml_backend_sched_t s) const { give_back(s, ggml_backend_sched_free); }
    };
    using Scheduler = std::unique_ptr<ggml_backend_sched, SchedulerDeleter>;

    // Makes room for graphs of `size` nodes and leafs in the scheduler's tables.
    void make_scheduler(size_t size);
    void lay_out(Plan& plan);
    void run_placed(Plan& plan, const std::function<void()>& meanwhile);
    void check_sizes(const Plan& plan) const;
    void check_memory(const Plan& plan);

    const Backend& backend_;
    Scheduler scheduler_;
    size_t scheduler_size_ = 0;
    uint64_t last_ = 0;                  // the structure that the allocator has laid out last
    std::vector<size_t> kernel_memory_;  // bytes on each backend that were there for its kernels to take
};

}  // namespace sdltx
