#include "image.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace sdltx {

Footage footage_of(const Array& pixels) {
    constexpr int64_t rgb = 3;
    if (pixels.shape.size() != 4 || pixels.dim(3) != rgb)
        throw Error(ErrorCode::invalid_request,
                    "[image] expected pixels of (frames, height, width, 3), got " + spell_shape(pixels.shape));
    const int64_t size = pixels.dim(1) * pixels.dim(2) * rgb;
    return {pixels.dim(0), pixels.dim(1), pixels.dim(2),
            [&pixels, size](int64_t frame, float* to) { std::copy_n(pixels.data.begin() + frame * size, size, to); }};
}

Footage footage_of(const uint8_t* rgb, int64_t frames, int64_t height, int64_t width) {
    constexpr float half = 127.5f;
    const int64_t size = height * width * 3;
    return {frames, height, width, [rgb, size](int64_t frame, float* to) {
                for (int64_t i = 0; i < size; ++i) to[i] = static_cast<float>(rgb[frame * size + i]) / half - 1.0f;
            }};
}

namespace {

// Where the pixels of one side come from: two neighbours, and how much of the second there is.
struct Source {
    int64_t first, second;
    float share;
};

// Pixels [skip, skip + wanted) of a side of `from` pixels that is stretched to `to`.
std::vector<Source> sources(int64_t from, int64_t to, int64_t skip, int64_t wanted) {
    const float scale = static_cast<float>(from) / static_cast<float>(to);
    std::vector<Source> out;
    for (int64_t i = skip; i < skip + wanted; ++i) {
        const float at = std::max(scale * (static_cast<float>(i) + 0.5f) - 0.5f, 0.0f);
        const auto first = std::min(static_cast<int64_t>(at), from - 1);
        out.push_back({first, std::min(first + 1, from - 1), at - static_cast<float>(first)});
    }
    return out;
}

}  // namespace

Array fit_image(const Frames& image, int64_t height, int64_t width) {
    if (image.num_frames != 1 || image.height < 1 || image.width < 1 ||
        image.data.size() != static_cast<size_t>(image.height * image.width * 3))
        throw Error(ErrorCode::invalid_request, "[image] expected one picture of RGB bytes (height, width, 3)");
    const double scale = std::max(static_cast<double>(height) / static_cast<double>(image.height),
                                  static_cast<double>(width) / static_cast<double>(image.width));
    const auto covering = [&](int64_t side) {
        return static_cast<int64_t>(std::ceil(static_cast<double>(side) * scale));
    };
    const int64_t tall = std::max(covering(image.height), height), wide = std::max(covering(image.width), width);
    const auto rows = sources(image.height, tall, (tall - height) / 2, height),
               columns = sources(image.width, wide, (wide - width) / 2, width);
    Array out{{1, height, width, 3}, {}};
    out.data.reserve(static_cast<size_t>(height * width * 3));
    for (const Source& y : rows)
        for (const Source& x : columns)
            for (int64_t c = 0; c < 3; ++c) {
                const auto pixel = [&](int64_t row, int64_t column) {
                    return static_cast<float>(image.data[static_cast<size_t>((row * image.width + column) * 3 + c)]);
                };
                const float above = (1 - x.share) * pixel(y.first, x.first) + x.share * pixel(y.first, x.second),
                            below = (1 - x.share) * pixel(y.second, x.first) + x.share * pixel(y.second, x.second);
                out.data.push_back(((1 - y.share) * above + y.share * below) / 127.5f - 1.0f);
            }
    return out;
}

}  // namespace sdltx
