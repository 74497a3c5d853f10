// Noise levels of a run (sampling.md section 2; ltx-pipelines constants, ltx-core LTX2Scheduler).
#pragma once

#include <cstdint>
#include <vector>

#include "base/export.h"

namespace sdltx {

// 8 steps of a distilled checkpoint, and the 3 that refine an upscaled latent. The last value is 0.
SDLTX_EXPORT std::vector<float> distilled_sigmas();
SDLTX_EXPORT std::vector<float> distilled_stage_2_sigmas();

struct Ltx2Schedule {
    // Tokens of the video latent; the reference uses 4096 whatever the size, but in its HQ pipeline.
    int64_t tokens = 4096;
    bool stretch = true;  // so that the last nonzero sigma is `terminal`
    double terminal = 0.1;
};
// steps + 1 falling values from 1 to 0. Throws Error(invalid_request) unless 1 <= steps <= 1000.
SDLTX_EXPORT std::vector<float> ltx2_sigmas(int64_t steps, const Ltx2Schedule& options = {});

// Throws Error(invalid_request) unless there are at least two values, strictly falling, within [0, 1].
void check_sigmas(const std::vector<float>& sigmas);

}  // namespace sdltx
