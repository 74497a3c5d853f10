// What a step of a plan takes, and what of the weights stays meanwhile. No ggml.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/json.h"
#include "plan.h"

namespace sdltx {

struct StepMemory {
    StepKind kind;
    struct Device {
        std::string name;
        // Bytes: of weights in memory of their own, of those used where they lie in files (which the system can take
        // back), of values that live through the step, of what is computed in.
        size_t weights = 0, mapped = 0, inputs = 0, working = 0;
    };
    std::vector<Device> devices;  // the first computes first; after those that hold weights, the host
    size_t host = 0;              // of values on their way
    size_t passing = 0;           // of weights that are read for each use, as they do not all fit

    // Of memory on all devices, files not counted.
    size_t memory() const;
};

// {"steps": [...], "memory": the most of all steps}
SDLTX_EXPORT Json to_json(const std::vector<StepMemory>& steps);

}  // namespace sdltx
