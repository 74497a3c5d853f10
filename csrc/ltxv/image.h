// Pictures as the video VAE takes them (sampling.md section 5; ltx-pipelines media_io).
#pragma once

#include <cstdint>
#include <functional>

#include "base/export.h"
#include "base/types.h"

namespace sdltx {

// Frames as the video VAE takes them, from wherever they are: RGB (height, width, 3) in [-1, 1], one at a time.
struct Footage {
    int64_t frames, height, width;
    std::function<void(int64_t frame, float* rgb)> read;
};
// Of pixels (F, H, W, 3), which must outlive it. Throws Error(invalid_request) for other shapes.
SDLTX_EXPORT Footage footage_of(const Array& pixels);
// Of bytes (F, H, W, 3).
SDLTX_EXPORT Footage footage_of(const uint8_t* rgb, int64_t frames, int64_t height, int64_t width);

// One picture of any size, RGB -> (1, height, width, 3) in [-1, 1]: scaled to cover that size (bilinear, without
// smoothing), the rest cut off on both sides. Throws Error(invalid_request) for a picture without pixels.
SDLTX_EXPORT Array fit_image(const Frames& image, int64_t height, int64_t width);

}  // namespace sdltx
