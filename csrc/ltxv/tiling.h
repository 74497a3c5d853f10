// How a latent volume is cut into overlapping tiles and put together again (video_vae.md section 7; ltx-core
// tiling.py).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/export.h"

namespace sdltx {

// In pixels and frames; converted to latent units by 32 and 8. Zero tile = that axis is not cut.
struct Tiling {
    int64_t tile_pixels = 768, overlap_pixels = 64;  // of the longer side; the shorter side's tile keeps the aspect
    int64_t tile_frames = 80, overlap_frames = 24;
};

// All in one piece.
constexpr Tiling untiled{0, 0, 0, 0};

// Smaller and smaller ones, for where memory is short. They change pictures a little where they meet.
SDLTX_EXPORT const std::vector<Tiling>& smaller_tilings();

// Throws Error(invalid_request) for tiles that do not advance. Needs no model, so call it before one is loaded.
SDLTX_EXPORT void check(const Tiling& tiling);

// A run of latent cells [start, end) with blending ramps (in cells) at its ends.
struct Span {
    int64_t start, end, left_ramp, right_ramp;
};

std::vector<Span> split_space(int64_t length, int64_t tile, int64_t overlap);
// As in space, but every span but the first starts one latent frame earlier, which hides its causal first frame.
std::vector<Span> split_time(int64_t length, int64_t tile, int64_t overlap);

// The tiles of latents of (frames, height, width) cells.
struct TileGrid {
    TileGrid(std::array<int64_t, 3> shape, const Tiling& tiling);

    std::vector<Span> times, rows, columns;

    size_t size() const { return times.size() * rows.size() * columns.size(); }
    // Of all tiles the most cells along each axis.
    std::array<int64_t, 3> largest() const;
};

// Where a tile goes, and its weight per row, column or frame: of pixels and frames, or, with a scale of 1, of cells.
struct Placement {
    int64_t start, end;
    std::vector<float> mask;
};
Placement place_space(const Span& s, int64_t scale = 32);
Placement place_time(const Span& s, int64_t scale = 8);

}  // namespace sdltx
