// How the C ABI runs what takes time: with the caller's callback asked, and the pipeline in this thread's hands.
#pragma once

#include <utility>

#include "capi_values.h"

namespace sdltx {

inline sdltx_callbacks callbacks_of(const sdltx_callbacks* given) {
    sdltx_callbacks out{};
    take_options(out, given, "callbacks", {sizeof(sdltx_callbacks)});
    return out;
}

// What a caller hears of a run, and says to it.
class Watch {
 public:
    Watch(sdltx_progress_fn fn, void* payload) : fn_(fn), payload_(payload) {}

    Progress progress() {
        if (!fn_) return {};
        return [this](const ProgressEvent& e) {
            last_ = e;
            return again();
        };
    }
    Backend::Poll poll() {
        if (!fn_) return {};
        return [this] { return !last_.phase || again(); };
    }

 private:
    bool again() { return fn_(last_.phase, last_.done, last_.total, payload_) == 0; }

    sdltx_progress_fn fn_;
    void* payload_;
    ProgressEvent last_{};
};

// The pipeline in this thread's hands, asking `watch` while devices compute.
class Run {
 public:
    Run(Pipeline& pipeline, Watch& watch)
        : turn_(pipeline), backend_(pipeline.backend()), before_(backend_.exchange_poll(watch.poll())) {}
    ~Run() { backend_.exchange_poll(std::move(before_)); }
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

 private:
    Pipeline::Turn turn_;
    Backend& backend_;
    Backend::Poll before_;
};

}  // namespace sdltx
