#include "conditioning.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace sdltx {

void begin_with(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    const std::vector<float> tokens = video_to_tokens(keyframe.latent);
    std::copy(tokens.begin(), tokens.end(), s.clean.begin());
    std::fill_n(s.mask.begin(), g.height * g.width, 1 - keyframe.strength);
}

namespace {

// The tokens of one picture, which lasts for one frame of the clip: what they are, and what they are held at.
void append_picture(StreamState& s, const Geometry& g, int64_t frame, const std::vector<float>& latent,
                    const std::vector<float>& clean, float mask, bool marked) {
    const int64_t before = s.num_tokens, more = g.height * g.width;
    s.num_tokens += more;
    const auto size = static_cast<size_t>(s.num_tokens * s.channels);
    s.latent.insert(s.latent.end(), latent.begin(), latent.end());
    s.latent.resize(size, 0.0f);
    s.clean.insert(s.clean.end(), clean.begin(), clean.end());
    s.clean.resize(size, 0.0f);
    s.mask.resize(static_cast<size_t>(s.num_tokens), mask);

    Positions own = video_positions(1, g.height, g.width, g.frame_rate);
    for (int64_t i = 0; i < more; ++i)
        for (int end = 0; end < 2; ++end)
            own.bounds[static_cast<size_t>(2 * i + end)] =
                static_cast<float>(static_cast<double>(frame + end) / g.frame_rate);
    Positions all{s.positions.axes, s.num_tokens, {}, s.positions.marked};
    all.marked.resize(static_cast<size_t>(s.num_tokens), marked);
    for (int64_t axis = 0; axis < all.axes; ++axis)
        for (const auto& [from, count] : {std::pair{&s.positions, before}, {&own, more}}) {
            const auto first = from->bounds.begin() + axis * count * 2;
            all.bounds.insert(all.bounds.end(), first, first + count * 2);
        }
    s.positions = std::move(all);
}

}  // namespace

void append_keyframe(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    append_picture(s, g, keyframe.frame, {}, video_to_tokens(keyframe.latent), 1 - keyframe.strength, false);
}

void append_slot(StreamState& s, const Geometry& g, int64_t frame, const Array& latent) {
    append_picture(s, g, frame, latent.empty() ? std::vector<float>{} : video_to_tokens(latent), {}, 1, true);
}

std::vector<int64_t> slot_frames(int64_t count, int64_t num_frames) {
    std::vector<int64_t> frames;
    for (int64_t i = 1; i <= count; ++i) {
        const double at = static_cast<double>(i * (num_frames - 1)) / static_cast<double>(count + 1);
        frames.push_back(static_cast<int64_t>(std::nearbyint(at)));  // halves to even
        if (frames.back() < 1 || (i > 1 && frames.back() == frames[frames.size() - 2]))
            throw Error(ErrorCode::invalid_request, "[sample] a clip of " + std::to_string(num_frames) +
                                                        " frames has no room for " + std::to_string(count) +
                                                        " generated keyframes; ask for fewer");
    }
    return frames;
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
