#include "stage.h"

#include <algorithm>

#include "ltxv/noise.h"

namespace sdltx {

namespace {

void expect_shape(const char* name, const Array& a, const std::vector<int64_t>& shape) {
    if (a.shape == shape) return;
    throw Error(ErrorCode::invalid_request, std::string("[sample] ") + name + " must have the shape " +
                                                spell_shape(shape) + ", got " + spell_shape(a.shape));
}

bool is_context(const Array& a, int64_t width) { return a.shape.size() == 2 && a.dim(0) >= 1 && a.dim(1) == width; }

}  // namespace

std::unique_ptr<Sampler> one_stage(Transformer& transformer, Workspace& workspace, const AudioLatentConfig& audio,
                                   const Context& context, const Context* negative, const SampleSettings& settings,
                                   const Start& from, Trace* trace) {
    const TransformerConfig& c = transformer.config();
    const Geometry& g = settings.latent;
    for (const Context* given : {&context, negative})
        if (given && (!is_context(given->video, c.video.context_dim) ||
                      (settings.audio && !is_context(given->audio, c.audio.context_dim))))
            throw Error(ErrorCode::invalid_request,
                        "[sample] the context must be (rows, " + std::to_string(c.video.context_dim) +
                            ") for video and (rows, " + std::to_string(c.audio.context_dim) +
                            ") for sound; make it with encode() of the same model");
    for (const auto& [name, a] : {std::pair{"video noise", &from.video.noise}, {"video latents", &from.video.initial}})
        if (!a->empty()) expect_shape(name, *a, {c.video.in_channels, g.frames, g.height, g.width});
    for (const auto& [name, a] : {std::pair{"audio noise", &from.audio.noise}, {"audio latents", &from.audio.initial}})
        if (!a->empty()) expect_shape(name, *a, {audio.channels, g.audio_frames, audio.mel_bins});

    SampleState start = {empty_stream(c.video.in_channels, video_positions(g.frames, g.height, g.width, g.frame_rate)),
                         empty_stream(c.audio.in_channels, audio_positions(settings.audio ? g.audio_frames : 0))};
    if (!from.video.initial.empty()) start.video.latent = video_to_tokens(from.video.initial);
    if (settings.audio && !from.audio.initial.empty()) start.audio.latent = audio_to_tokens(from.audio.initial);
    for (auto& [spec, stream] : {std::pair{&from.video, &start.video}, {&from.audio, &start.audio}})
        if (spec->frozen) freeze(*stream);
    for (const Keyframe& keyframe : from.video.keyframes) {
        expect_shape("a picture's latent", keyframe.latent, {c.video.in_channels, 1, g.height, g.width});
        if (keyframe.frame == 0 && !from.video.appends_first_frame)
            begin_with(start.video, g, keyframe);
        else
            append_keyframe(start.video, g, keyframe);
    }
    // Seeds do not use their upper bit: a clip that is refined gets other noise than it was made from.
    const bool refines = !from.video.initial.empty();
    const uint64_t seed = static_cast<uint64_t>(settings.seed) | static_cast<uint64_t>(refines) << 63;
    const auto drawn = [&](NoiseStream stream, const StreamState& s) {
        return normal_noise(seed, stream, s.num_tokens * s.channels);
    };
    const float first = settings.sigmas.front();
    std::vector<float> video_noise = drawn(NoiseStream::video, start.video);  // of appended tokens too
    if (!from.video.noise.empty()) {
        const std::vector<float> given = video_to_tokens(from.video.noise);
        std::copy(given.begin(), given.end(), video_noise.begin());
    }
    add_noise(start.video, video_noise, first);
    if (settings.audio)
        add_noise(start.audio,
                  from.audio.noise.empty() ? drawn(NoiseStream::audio, start.audio) : audio_to_tokens(from.audio.noise),
                  first);
    Denoiser denoiser(transformer, workspace, context, negative, settings.guidance, start, trace, from.loras);
    const auto draw = [seed](const NoiseRequest& r) {
        const NoiseStream streams[2][2] = {{NoiseStream::audio, NoiseStream::audio_substep},
                                           {NoiseStream::video, NoiseStream::video_substep}};
        return normal_noise(seed, streams[r.video][r.kind], r.count, static_cast<uint32_t>(r.step + 1));
    };
    return std::make_unique<Sampler>(std::move(denoiser), std::move(start), settings.sigmas, settings.sampler,
                                     from.draw ? from.draw : DrawNoise(draw));
}

Latents latents_of(const SampleState& state, const AudioLatentConfig& audio, const SampleSettings& settings) {
    Latents latents{
        tokens_to_video(state.video.latent, state.video.channels, settings.latent), {}, settings.frame_rate};
    if (settings.audio)
        latents.audio =
            tokens_to_audio(state.audio.latent, audio.channels, audio.mel_bins, settings.latent.audio_frames);
    return latents;
}

}  // namespace sdltx
