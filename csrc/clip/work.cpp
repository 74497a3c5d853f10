#include "work.h"

#include <algorithm>

namespace sdltx {

void Work::begin(StepKind kind, double operations) {
    end();
    kind_ = kind;
    current_ = operations;
    since_ = Clock::now();
}

void Work::end() {
    if (current_ > 0) advance(1, 1);
    current_ = of_current_ = 0;
}

void Work::advance(int64_t done, int64_t total) {
    if (total <= 0) return;
    const double now = current_ * static_cast<double>(done) / static_cast<double>(total);
    const double more = std::max(0.0, now - of_current_);
    const Clock::time_point time = Clock::now();
    Pace& pace = paces_[kind_];
    pace.operations += more;
    pace.seconds += std::chrono::duration<double>(time - since_).count();
    since_ = time;
    of_current_ += more;
    left_[kind_] -= more;
    done_ += more;
}

double Work::seconds_of(StepKind kind, double operations, const Pace& all) const {
    // What has not been seen yet is taken to be as fast as the rest.
    const auto own = paces_.find(kind);
    const Pace& pace = own != paces_.end() && own->second.operations > 0 ? own->second : all;
    return pace.operations > 0 ? operations * pace.seconds / pace.operations : 0;
}

WholeProgress Work::whole() const {
    Pace all;
    for (auto& [kind, pace] : paces_) {
        all.operations += pace.operations;
        all.seconds += pace.seconds;
    }
    double left = 0, seconds = 0;
    for (auto& [kind, operations] : left_) {
        const double there = std::max(0.0, operations);
        left += there;
        seconds += seconds_of(kind, there, all);
    }
    const double total = done_ + left;
    // What is left of sums and differences is nothing.
    if (left < 1e-9 * total) return {1, 0};
    return {done_ / total, all.operations > 0 ? seconds : -1};
}

}  // namespace sdltx
