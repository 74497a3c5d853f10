#include "tiling.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace sdltx {

const std::vector<Tiling>& smaller_tilings() {
    static const std::vector<Tiling> all{{512, 64, 64, 24}, {384, 64, 48, 24}, {256, 64, 32, 16},
                                         {192, 64, 24, 8},  {128, 64, 16, 8},  {64, 32, 16, 8}};
    return all;
}

void check(const Tiling& t) {
    const auto axis = [](const char* tile_name, int64_t tile, const char* overlap_name, int64_t overlap, int64_t unit,
                         int64_t least) {
        const auto bad = [&](const std::string& must) {
            throw Error(ErrorCode::invalid_request, std::string("[decode] ") + tile_name + " " + std::to_string(tile) +
                                                        " with " + overlap_name + " " + std::to_string(overlap) +
                                                        " is not possible: " + must);
        };
        if (tile < 0 || tile % unit || overlap < 0 || overlap % unit)
            bad("both must be multiples of " + std::to_string(unit) + " (a tile of 0 is not cut)");
        if (tile && (tile < least || overlap * 2 > tile))
            bad("a tile must be at least " + std::to_string(least) + " and twice its overlap");
    };
    axis("tile size", t.tile_pixels, "overlap", t.overlap_pixels, 32, 64);
    axis("tile frames", t.tile_frames, "frame overlap", t.overlap_frames, 8, 16);
}

std::vector<Span> split_space(int64_t length, int64_t tile, int64_t overlap) {
    if (tile <= 0 || length <= tile) return {{0, length, 0, 0}};
    const int64_t step = tile - overlap, n = (length + tile - 2 * overlap - 1) / step;
    std::vector<Span> spans;
    for (int64_t i = 0; i < n; ++i)
        spans.push_back({i * step, i + 1 < n ? i * step + tile : length, i ? overlap : 0, i + 1 < n ? overlap : 0});
    return spans;
}

std::vector<Span> split_time(int64_t length, int64_t tile, int64_t overlap) {
    auto spans = split_space(length, tile, overlap);
    for (size_t i = 1; i < spans.size(); ++i) {
        --spans[i].start;
        ++spans[i].left_ramp;
    }
    return spans;
}

TileGrid::TileGrid(std::array<int64_t, 3> shape, const Tiling& t) {
    const auto [depth, height, width] = shape;
    const int64_t tile = t.tile_pixels / 32, overlap = t.overlap_pixels / 32, longer = std::max(height, width);
    // The longer side's tile is given, the shorter side's keeps the aspect.
    const auto side = [&](int64_t n) {
        if (n == longer || !tile) return tile;
        const auto scaled = static_cast<int64_t>(
            std::nearbyint(static_cast<double>(tile) * static_cast<double>(n) / static_cast<double>(longer)));
        return std::max({int64_t{2}, overlap + 1, scaled});
    };
    times = split_time(depth, t.tile_frames / 8, t.overlap_frames / 8);
    rows = split_space(height, side(height), overlap);
    columns = split_space(width, side(width), overlap);
}

std::array<int64_t, 3> TileGrid::largest() const {
    const auto longest = [](const std::vector<Span>& spans) {
        int64_t n = 0;
        for (auto& s : spans) n = std::max(n, s.end - s.start);
        return n;
    };
    return {longest(times), longest(rows), longest(columns)};
}

Placement place_space(const Span& s, int64_t scale) {
    const int64_t n = (s.end - s.start) * scale, left = s.left_ramp * scale, right = s.right_ramp * scale;
    std::vector<float> mask(static_cast<size_t>(n), 1.0f);
    for (int64_t i = 0; i < left; ++i)
        mask[static_cast<size_t>(i)] *= static_cast<float>(i + 1) / static_cast<float>(left + 1);
    for (int64_t i = 0; i < right; ++i)
        mask[static_cast<size_t>(n - 1 - i)] *= static_cast<float>(i + 1) / static_cast<float>(right + 1);
    return {s.start * scale, s.end * scale, mask};
}

Placement place_time(const Span& s, int64_t scale) {
    const int64_t start = s.start * scale, end = 1 + (s.end - 1) * scale, n = end - start;
    const int64_t left = s.left_ramp ? 1 + (s.left_ramp - 1) * scale : 0, right = s.right_ramp * scale;
    std::vector<float> mask(static_cast<size_t>(n), 1.0f);
    // The ramp of a later tile starts at 0, not at its first interior point.
    for (int64_t i = 0; i < left; ++i) mask[static_cast<size_t>(i)] *= static_cast<float>(i) / static_cast<float>(left);
    for (int64_t i = 0; i < right; ++i)
        mask[static_cast<size_t>(n - 1 - i)] *= static_cast<float>(i + 1) / static_cast<float>(right + 1);
    return {start, end, mask};
}

}  // namespace sdltx
