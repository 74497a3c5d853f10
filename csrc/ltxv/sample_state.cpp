#include "sample_state.h"

#include <algorithm>

namespace sdltx {

StreamState empty_stream(int64_t channels, Positions positions) {
    StreamState s;
    s.num_tokens = positions.tokens;
    s.channels = channels;
    s.latent.assign(static_cast<size_t>(s.num_tokens * channels), 0.0f);
    s.clean = s.latent;
    s.mask.assign(static_cast<size_t>(s.num_tokens), 1.0f);
    s.positions = std::move(positions);
    s.groups.target = s.num_tokens;
    return s;
}

std::vector<float> video_to_tokens(const Array& a) {
    const int64_t channels = a.dim(0), tokens = a.dim(1) * a.dim(2) * a.dim(3);
    std::vector<float> out(a.data.size());
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < tokens; ++t)
            out[static_cast<size_t>(t * channels + c)] = a.data[static_cast<size_t>(c * tokens + t)];
    return out;
}

Array tokens_to_video(const std::vector<float>& tokens, int64_t channels, const Geometry& g) {
    const int64_t count = g.frames * g.height * g.width;
    Array a{{channels, g.frames, g.height, g.width}, std::vector<float>(static_cast<size_t>(channels * count))};
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t t = 0; t < count; ++t)
            a.data[static_cast<size_t>(c * count + t)] = tokens[static_cast<size_t>(t * channels + c)];
    return a;
}

std::vector<float> audio_to_tokens(const Array& a) {
    const int64_t channels = a.dim(0), frames = a.dim(1), bins = a.dim(2);
    std::vector<float> out;
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t c = 0; c < channels; ++c) {
            const auto row = a.data.begin() + (c * frames + t) * bins;
            out.insert(out.end(), row, row + bins);
        }
    return out;
}

Array tokens_to_audio(const std::vector<float>& tokens, int64_t channels, int64_t bins, int64_t frames) {
    Array a{{channels, frames, bins}, std::vector<float>(static_cast<size_t>(channels * frames * bins))};
    for (int64_t t = 0; t < frames; ++t)
        for (int64_t c = 0; c < channels; ++c)
            std::copy_n(tokens.begin() + (t * channels + c) * bins, bins, a.data.begin() + (c * frames + t) * bins);
    return a;
}

Array latent_frame(const Array& latents, int64_t i) {
    const int64_t channels = latents.dim(0), frames = latents.dim(1), cells = latents.dim(2) * latents.dim(3);
    Array one{{channels, 1, latents.dim(2), latents.dim(3)}, {}};
    for (int64_t c = 0; c < channels; ++c) {
        const auto first = latents.data.begin() + (c * frames + i) * cells;
        one.data.insert(one.data.end(), first, first + cells);
    }
    return one;
}

Array joined_frames(const std::vector<Array>& frames) {
    const Array& first = frames.front();
    const int64_t channels = first.dim(0), cells = first.dim(2) * first.dim(3);
    Array all{{channels, static_cast<int64_t>(frames.size()), first.dim(2), first.dim(3)}, {}};
    for (int64_t c = 0; c < channels; ++c)
        for (const Array& frame : frames) {
            const auto from = frame.data.begin() + c * cells;
            all.data.insert(all.data.end(), from, from + cells);
        }
    return all;
}

}  // namespace sdltx
