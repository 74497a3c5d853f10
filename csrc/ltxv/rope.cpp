#include "rope.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

namespace sdltx {

namespace {

constexpr double half_pi = 1.57079632679489661923;
constexpr int64_t temporal_scale = 8, spatial_scale = 32;
constexpr int64_t audio_downsample = 4, audio_hop = 160;
constexpr double audio_rate = 16000;

}  // namespace

Positions video_positions(int64_t frames, int64_t height, int64_t width, double frame_rate) {
    Positions p;
    p.axes = 3;
    p.tokens = frames * height * width;
    p.bounds.resize(static_cast<size_t>(p.axes * p.tokens * 2));
    p.marked.assign(static_cast<size_t>(p.tokens), false);
    std::fill_n(p.marked.begin(), std::min(p.tokens, height * width), true);
    const float fps = static_cast<float>(frame_rate);
    // Causal: the first latent frame stands for one picture, so all later ones start 7 frames earlier.
    auto start = [](int64_t f) {
        return static_cast<float>(std::max<int64_t>(0, temporal_scale * f + 1 - temporal_scale));
    };
    for (int64_t f = 0, t = 0; f < frames; ++f)
        for (int64_t h = 0; h < height; ++h)
            for (int64_t w = 0; w < width; ++w, ++t) {
                auto set = [&](int64_t axis, float from, float to) {
                    p.bounds[static_cast<size_t>((axis * p.tokens + t) * 2)] = from;
                    p.bounds[static_cast<size_t>((axis * p.tokens + t) * 2 + 1)] = to;
                };
                set(0, start(f) / fps, start(f + 1) / fps);
                set(1, static_cast<float>(spatial_scale * h), static_cast<float>(spatial_scale * (h + 1)));
                set(2, static_cast<float>(spatial_scale * w), static_cast<float>(spatial_scale * (w + 1)));
            }
    return p;
}

Positions audio_positions(int64_t frames) {
    Positions p;
    p.axes = 1;
    p.tokens = frames;
    auto start = [](int64_t i) {
        const int64_t mel_frame = std::max<int64_t>(0, audio_downsample * i + 1 - audio_downsample);
        return static_cast<float>(static_cast<double>(mel_frame * audio_hop) / audio_rate);
    };
    for (int64_t i = 0; i < frames; ++i) {
        p.bounds.push_back(start(i));
        p.bounds.push_back(start(i + 1));
    }
    return p;
}

RopeTable rope_table(const Positions& positions, int64_t dim, const std::vector<double>& max_pos, double theta) {
    const int64_t axes = static_cast<int64_t>(max_pos.size()), half = dim / 2, count = dim / (2 * axes);
    // Built in fp64, rounded once: frequencies built in fp32 differ visibly at the top.
    std::vector<float> frequencies;
    for (int64_t k = 0; k < count; ++k)
        frequencies.push_back(static_cast<float>(
            half_pi * std::pow(theta, count > 1 ? static_cast<double>(k) / static_cast<double>(count - 1) : 0.0)));
    RopeTable table;
    table.cos.assign(static_cast<size_t>(positions.tokens * half), 1.0f);
    table.sin.assign(static_cast<size_t>(positions.tokens * half), 0.0f);
    // Entries left over are identities and come first. Splitting into heads is a plain reshape: (T, heads, half/heads).
    const int64_t identities = half - axes * count;
    // Many tokens share a position on an axis, which has few.
    using Angles = std::vector<std::pair<float, float>>;  // cos and sin of each frequency
    std::vector<std::unordered_map<float, Angles>> known(static_cast<size_t>(axes));
    const auto angles_at = [&](int64_t axis, float position) -> const Angles& {
        auto [it, fresh] = known[static_cast<size_t>(axis)].try_emplace(position);
        if (!fresh) return it->second;
        const float fraction = position / static_cast<float>(max_pos[static_cast<size_t>(axis)]) * 2 - 1;
        for (float frequency : frequencies) {
            const double angle = static_cast<double>(frequency * fraction);
            it->second.emplace_back(static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle)));
        }
        return it->second;
    };
    for (int64_t t = 0; t < positions.tokens; ++t)
        for (int64_t axis = 0; axis < axes; ++axis) {
            size_t at = static_cast<size_t>(t * half + identities + axis);
            for (auto [cos, sin] : angles_at(axis, positions.middle(axis, t))) {
                table.cos[at] = cos;
                table.sin[at] = sin;
                at += static_cast<size_t>(axes);
            }
        }
    return table;
}

}  // namespace sdltx
