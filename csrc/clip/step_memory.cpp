#include "step_memory.h"

#include <algorithm>

namespace sdltx {

size_t StepMemory::memory() const {
    size_t bytes = host;
    for (const Device& d : devices) bytes += d.weights + d.inputs + d.working;
    return bytes;
}

Json to_json(const std::vector<StepMemory>& steps) {
    Json out{{"steps", Json::array()}, {"memory", 0}};
    size_t most = 0;
    for (const StepMemory& step : steps) {
        Json devices = Json::array();
        for (const StepMemory::Device& d : step.devices)
            devices.push_back({{"device", d.name},
                               {"weights", d.weights},
                               {"mapped", d.mapped},
                               {"inputs", d.inputs},
                               {"working", d.working}});
        most = std::max(most, step.memory());
        Json tiles;
        if (step.tiles)
            tiles = {step.tiles->tile_pixels, step.tiles->overlap_pixels, step.tiles->tile_frames,
                     step.tiles->overlap_frames};
        out["steps"].push_back({{"step", name_of(step.kind)},
                                {"devices", devices},
                                {"host", step.host},
                                {"passing", step.passing},
                                {"reading", step.reading},
                                {"brought", step.brought},
                                {"tiles", tiles},
                                {"misfit", step.misfit},
                                {"operations", step.operations},
                                {"memory", step.memory()}});
    }
    out["memory"] = most;
    return out;
}

}  // namespace sdltx
