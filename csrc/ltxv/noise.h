// Seeded noise that is the same on every device and thread count: Philox 4x32-10 (Salmon et al. 2011) and Box-Muller.
#pragma once

#include <cstdint>
#include <vector>

#include "base/export.h"

namespace sdltx {

// Independent streams of one seed, in the order in which the reference draws them.
enum class NoiseStream : uint32_t { video = 0, audio = 1, video_substep = 2, audio_substep = 3, text = 4 };

// `count` standard normal values; value i depends on (seed, stream, step, i) alone. Step 0 is the noise that a run
// starts from, step i + 1 what a stochastic stepper adds in its step i.
SDLTX_EXPORT std::vector<float> normal_noise(uint64_t seed, NoiseStream stream, int64_t count, uint32_t step = 0);
// A value between 0 and 1, of a step of a stream.
SDLTX_EXPORT double uniform_noise(uint64_t seed, NoiseStream stream, uint32_t step);

}  // namespace sdltx
