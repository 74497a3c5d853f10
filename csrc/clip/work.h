// How far a run is as a whole: its pieces, what each is estimated to cost, and how fast they have gone so far.
#pragma once

#include <chrono>
#include <map>
#include <vector>

#include "base/types.h"
#include "plan.h"
#include "run.h"

namespace sdltx {

class Work {
 public:
    // A piece that is to be done, in any order; `operations`: about how many multiply-adds.
    void add(StepKind kind, double operations) { left_[kind] += operations; }
    // From now on events are of this piece, until the next; what was begun is done.
    void begin(StepKind kind, double operations);
    // Nothing more comes of the current piece, or of one that will not be done.
    void end();
    void drop(StepKind kind, double operations) { left_[kind] -= operations; }
    // done of total units of the current piece.
    void advance(int64_t done, int64_t total);
    WholeProgress whole() const;

 private:
    using Clock = std::chrono::steady_clock;
    struct Pace {
        double operations = 0, seconds = 0;
    };
    double seconds_of(StepKind kind, double operations, const Pace& all) const;

    std::map<StepKind, double> left_;  // the current piece too
    std::map<StepKind, Pace> paces_;
    double done_ = 0;
    StepKind kind_{};
    double current_ = 0, of_current_ = 0;  // operations of the piece, and how many of them are done
    Clock::time_point since_ = Clock::now();
};

}  // namespace sdltx
