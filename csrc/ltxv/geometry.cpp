#include "geometry.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"

namespace sdltx {

namespace {

constexpr int64_t max_pixels = 16384, max_frames = 1 << 16, max_audio_frames = 1 << 16, max_cells = 1 << 20;

// "480 or 512" for 500 and unit 32.
std::string nearest(int64_t value, int64_t unit, int64_t offset) {
    const int64_t below = (value - offset) / unit * unit + offset, above = below + unit;
    return below > 0 ? std::to_string(below) + " or " + std::to_string(above) : std::to_string(above);
}

}  // namespace

Geometry latent_geometry(int64_t width, int64_t height, int64_t num_frames, double frame_rate) {
    auto bad = [](const std::string& text) { throw Error(ErrorCode::invalid_request, "[sample] " + text); };
    auto side = [&](const char* name, int64_t n) {
        if (n < 32 || n > max_pixels)
            bad(std::string(name) + " " + std::to_string(n) + " is not between 32 and " + std::to_string(max_pixels));
        if (n % 32)
            bad(std::string(name) + " " + std::to_string(n) + " is not a multiple of 32; use " + nearest(n, 32, 0));
    };
    side("width", width);
    side("height", height);
    if (num_frames < 1 || num_frames > max_frames)
        bad("the number of frames " + std::to_string(num_frames) + " is not between 1 and " +
            std::to_string(max_frames));
    if ((num_frames - 1) % 8)
        bad("the number of frames " + std::to_string(num_frames) + " is not 8k + 1; use " + nearest(num_frames, 8, 1));
    if (!(frame_rate > 0 && frame_rate <= 1000))
        bad("the frame rate must be above 0 and at most 1000 frames per second");
    // 25 latent frames of sound per second, rounded half to even; a picture alone is beside the shortest sound.
    const double audio = std::max(1.0, std::nearbyint(static_cast<double>(num_frames) / frame_rate * 25.0));
    if (audio > max_audio_frames) bad("the clip would last over 43 minutes; use fewer frames or a higher rate");
    const Geometry g{(num_frames - 1) / 8 + 1, height / 32, width / 32, static_cast<int64_t>(audio), frame_rate};
    if (g.frames * g.height * g.width > max_cells)
        bad("the clip has " + std::to_string(g.frames * g.height * g.width) + " latent cells, at most " +
            std::to_string(max_cells) + " are possible; use a smaller size or fewer frames");
    return g;
}

void check_video_latents(int64_t frames, int64_t height, int64_t width) {
    const auto fits = [](int64_t n, int64_t most) { return n >= 1 && n <= most; };
    if (fits(frames, max_frames / 8) && fits(height, max_pixels / 32) && fits(width, max_pixels / 32) &&
        frames * height * width <= max_cells)
        return;
    throw Error(ErrorCode::invalid_request, "[decode] video latents of (" + std::to_string(frames) + ", " +
                                                std::to_string(height) + ", " + std::to_string(width) +
                                                ") frames, rows and columns belong to no clip: at most " +
                                                std::to_string(max_frames) + " frames, " + std::to_string(max_pixels) +
                                                " pixels a side and " + std::to_string(max_cells) + " cells");
}

void check_audio_latents(int64_t frames) {
    if (frames >= 1 && frames <= max_audio_frames) return;
    throw Error(ErrorCode::invalid_request, "[decode] audio latents of " + std::to_string(frames) +
                                                " frames belong to no clip: 1 to " + std::to_string(max_audio_frames) +
                                                ", 25 per second");
}

}  // namespace sdltx
