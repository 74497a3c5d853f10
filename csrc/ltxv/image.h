// Pictures as the video VAE takes them (sampling.md section 5; ltx-pipelines media_io).
#pragma once

#include <cstdint>

#include "base/export.h"
#include "base/types.h"

namespace sdltx {

// One picture of any size, RGB -> (1, height, width, 3) in [-1, 1]: scaled to cover that size (bilinear, without
// smoothing), the rest cut off on both sides. Throws Error(invalid_request) for a picture without pixels.
SDLTX_EXPORT Array fit_image(const Frames& image, int64_t height, int64_t width);

}  // namespace sdltx
