#include "conditioning.h"

#include <algorithm>
#include <utility>

namespace sdltx {

void begin_with(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    const std::vector<float> tokens = video_to_tokens(keyframe.latent);
    std::copy(tokens.begin(), tokens.end(), s.clean.begin());
    std::fill_n(s.mask.begin(), g.height * g.width, 1 - keyframe.strength);
}

void append_keyframe(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    const std::vector<float> tokens = video_to_tokens(keyframe.latent);
    const int64_t before = s.num_tokens, more = g.height * g.width;
    s.num_tokens += more;
    s.latent.resize(s.latent.size() + tokens.size(), 0.0f);
    s.clean.insert(s.clean.end(), tokens.begin(), tokens.end());
    s.mask.resize(static_cast<size_t>(s.num_tokens), 1 - keyframe.strength);

    // A single picture lasts for one frame of the clip.
    Positions own = video_positions(1, g.height, g.width, g.frame_rate);
    for (int64_t i = 0; i < more; ++i)
        for (int end = 0; end < 2; ++end)
            own.bounds[static_cast<size_t>(2 * i + end)] =
                static_cast<float>(static_cast<double>(keyframe.frame + end) / g.frame_rate);
    Positions all{s.positions.axes, s.num_tokens, {}, s.positions.marked};
    all.marked.resize(static_cast<size_t>(s.num_tokens), false);
    for (int64_t axis = 0; axis < all.axes; ++axis)
        for (const auto& [from, count] : {std::pair{&s.positions, before}, {&own, more}}) {
            const auto first = from->bounds.begin() + axis * count * 2;
            all.bounds.insert(all.bounds.end(), first, first + count * 2);
        }
    s.positions = std::move(all);
}

void freeze(StreamState& s) {
    s.clean = s.latent;
    std::fill(s.mask.begin(), s.mask.end(), 0.0f);
}

void add_noise(StreamState& s, const std::vector<float>& noise, float k) {
    for (size_t i = 0; i < s.latent.size(); ++i) {
        const float m = s.mask[i / static_cast<size_t>(s.channels)];
        const float noisy = (1 - k) * s.latent[i] + k * noise[i];
        s.latent[i] = (1 - m) * s.clean[i] + m * noisy;
    }
}

void hold_conditioned(const StreamState& s, std::vector<float>& x0) {
    for (size_t i = 0; i < x0.size(); ++i) {
        const float m = s.mask[i / static_cast<size_t>(s.channels)];
        x0[i] = x0[i] * m + s.clean[i] * (1 - m);
    }
}

}  // namespace sdltx
