// What a step of a plan takes, and what of the weights stays meanwhile. No ggml.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "ltxv/tiling.h"
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
    double reading = 0;           // seconds that this takes, at the speed that the disk has now; 0: not known
    size_t brought = 0;           // of weights that are brought to devices for each use, as they do not all fit
    std::optional<Tiling> tiles;  // that are chosen instead of larger ones that do not fit
    std::string misfit;           // why it cannot be; empty if it can
    double operations = 0;        // about how many multiply-adds it takes

    // Of memory on all devices, files not counted.
    size_t memory() const;
};

// {"steps": [...], "memory": the most of all steps}
SDLTX_EXPORT Json to_json(const std::vector<StepMemory>& steps);

}  // namespace sdltx
