#include "conditioning.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"

namespace sdltx {

namespace {

std::vector<float> tokens_of(const Array& latent) {
    return latent.shape.size() == 4 ? video_to_tokens(latent) : audio_to_tokens(latent);
}

// What is appended to a stream.
struct Tokens {
    Positions positions;
    std::vector<float> latent{}, clean{};  // empty: zeros
    float mask = 1;
    bool marked = false;
    std::optional<std::vector<float>> attention{};
};

void append(StreamState& s, const Tokens& more) {
    const int64_t before = s.num_tokens, count = more.positions.tokens;
    s.num_tokens += count;
    const auto size = static_cast<size_t>(s.num_tokens * s.channels);
    for (auto [to, from] : {std::pair{&s.latent, &more.latent}, {&s.clean, &more.clean}}) {
        to->insert(to->end(), from->begin(), from->end());
        to->resize(size, 0.0f);
    }
    s.mask.resize(static_cast<size_t>(s.num_tokens), more.mask);
    // Once there is a group, whoever comes later is one, too.
    if (more.attention || !s.groups.empty())
        s.groups.groups.push_back(
            {before, more.attention.value_or(std::vector<float>(static_cast<size_t>(count), 1.0f))});

    Positions all{s.positions.axes, s.num_tokens, {}, s.positions.marked};
    if (!all.marked.empty() || more.marked) all.marked.resize(static_cast<size_t>(s.num_tokens), more.marked);
    for (int64_t axis = 0; axis < all.axes; ++axis)
        for (const auto& [from, n] :
             {std::pair<const Positions*, int64_t>{&s.positions, before}, {&more.positions, count}}) {
            const auto first = from->bounds.begin() + axis * n * 2;
            all.bounds.insert(all.bounds.end(), first, first + n * 2);
        }
    s.positions = std::move(all);
}

// Where one picture is, which lasts for one frame of the clip.
Positions picture_positions(const Geometry& g, int64_t frame) {
    Positions p = video_positions(1, g.height, g.width, g.frame_rate);
    for (int64_t i = 0; i < p.tokens; ++i)
        for (int end = 0; end < 2; ++end)
            p.bounds[static_cast<size_t>(2 * i + end)] =
                static_cast<float>(static_cast<double>(frame + end) / g.frame_rate);
    return p;
}

}  // namespace

void keep(StreamState& s, const Kept& kept, int64_t tokens_of_frame) {
    const std::vector<float> tokens = tokens_of(kept.latent);
    const int64_t first = kept.first * tokens_of_frame, count = static_cast<int64_t>(tokens.size()) / s.channels;
    for (int64_t i = 0; i < count; ++i) {
        const float weight = kept.weight.empty() ? 1 : kept.weight.data[static_cast<size_t>(i)];
        float& mask = s.mask[static_cast<size_t>(first + i)];
        mask = mask * (1 - weight) + (1 - kept.strength) * weight;
        for (int64_t c = 0; c < s.channels; ++c) {
            float& clean = s.clean[static_cast<size_t>((first + i) * s.channels + c)];
            clean = clean * (1 - weight) + tokens[static_cast<size_t>(i * s.channels + c)] * weight;
        }
    }
}

void begin_with(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    keep(s, {keyframe.latent, 0, keyframe.strength}, g.height * g.width);
}

void append_keyframe(StreamState& s, const Geometry& g, const Keyframe& keyframe) {
    Tokens picture{picture_positions(g, keyframe.frame)};
    picture.clean = video_to_tokens(keyframe.latent);
    picture.mask = 1 - keyframe.strength;
    append(s, picture);
}

void append_reference(StreamState& s, double frame_rate, const ReferenceFilm& reference) {
    const Array& z = reference.latent;
    Tokens film{video_positions(z.dim(1), z.dim(2), z.dim(3), 1)};
    film.clean = video_to_tokens(z);
    film.mask = 1 - reference.strength;
    film.attention = reference.attention;
    // In float32, as the reference has it.
    const auto rate = static_cast<float>(frame_rate / static_cast<double>(reference.temporal)),
               shift = static_cast<float>(reference.temporal - 1) * (1 / static_cast<float>(frame_rate)),
               scale = static_cast<float>(reference.downscale);
    std::vector<float>& bounds = film.positions.bounds;
    const auto times = static_cast<size_t>(film.positions.tokens * 2);
    for (size_t i = 0; i < times; ++i) {
        bounds[i] /= rate;
        if (reference.temporal != 1) bounds[i] = std::max(0.0f, bounds[i] - shift);
    }
    for (size_t i = times; i < bounds.size(); ++i) bounds[i] *= scale;
    film.positions.marked.clear();
    append(s, film);
}

void append_sound(StreamState& s, const Array& latent) {
    constexpr float before = 0.04f;  // seconds from its end to the clip
    Tokens sound{audio_positions(latent.dim(1))};
    sound.clean = audio_to_tokens(latent);
    sound.mask = 0;
    const float end = sound.positions.bounds.back();
    for (float& bound : sound.positions.bounds) bound = bound - end - before;
    append(s, sound);
}

void append_slot(StreamState& s, const Geometry& g, int64_t frame, const Array& latent) {
    Tokens slot{picture_positions(g, frame)};
    if (!latent.empty()) slot.latent = video_to_tokens(latent);
    slot.marked = true;
    append(s, slot);
}

std::vector<float> within(const Positions& p, double from, double to) {
    std::vector<float> inside(static_cast<size_t>(p.tokens));
    const auto a = static_cast<float>(from), b = static_cast<float>(to);
    for (size_t t = 0; t < inside.size(); ++t) inside[t] = p.bounds[2 * t + 1] > a && p.bounds[2 * t] < b ? 1.0f : 0.0f;
    return inside;
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
    add_noise(s, s.latent, 0);  // no noise: tokens that are held are what they are held at
    s.frozen = true;
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
