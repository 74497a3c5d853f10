// Rotary position tables of LTX-2 (transformer.md section 4; ltx-core rope.py), split form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/export.h"

namespace sdltx {

// Start and end of every token on every axis: (axes, T, 2), float32 as in the reference. Time in seconds, rows and
// columns in pixels.
struct Positions {
    int64_t axes = 0, tokens = 0;
    std::vector<float> bounds;
    // (T): tokens that stand for one picture and are made, not given; see Transformer::mark. Empty: none.
    std::vector<bool> marked{};

    float middle(int64_t axis, int64_t token) const {
        const float* p = &bounds[static_cast<std::size_t>((axis * tokens + token) * 2)];
        return (p[0] + p[1]) / 2;
    }
};

// Cells of a (frames, height, width) latent grid, frame-major; each covers 8 frames (the first: 1) of 32x32 pixels.
// Those of the first latent frame are marked.
SDLTX_EXPORT Positions video_positions(int64_t frames, int64_t height, int64_t width, double frame_rate);
// Latent frames of sound, 25 per second.
SDLTX_EXPORT Positions audio_positions(int64_t frames);

// cos and sin, (T, dim/2). Read as (T, heads, head_dim/2), entry j of a head turns its pair (j, j + head_dim/2).
struct RopeTable {
    std::vector<float> cos, sin;
};

// `dim` = heads * head_dim, the frequencies run on through the heads; the first max_pos.size() axes of `positions` are
// used, each scaled by its max_pos.
SDLTX_EXPORT RopeTable rope_table(const Positions& positions, int64_t dim, const std::vector<double>& max_pos,
                                  double theta);

}  // namespace sdltx
