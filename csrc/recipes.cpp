#include "recipes.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "ltxv/noise.h"
#include "ltxv/schedule.h"

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
    const Noise& noise = from.noise;
    const TransformerConfig& c = transformer.config();
    const Geometry& g = settings.latent;
    for (const Context* given : {&context, negative})
        if (given && (!is_context(given->video, c.video.context_dim) ||
                      (settings.audio && !is_context(given->audio, c.audio.context_dim))))
            throw Error(ErrorCode::invalid_request,
                        "[sample] the context must be (rows, " + std::to_string(c.video.context_dim) +
                            ") for video and (rows, " + std::to_string(c.audio.context_dim) +
                            ") for sound; make it with encode() of the same model");
    for (const auto& [name, a] : {std::pair{"video noise", &noise.video}, {"video latents", &from.initial.video}})
        if (!a->empty()) expect_shape(name, *a, {c.video.in_channels, g.frames, g.height, g.width});
    for (const auto& [name, a] : {std::pair{"audio noise", &noise.audio}, {"audio latents", &from.initial.audio}})
        if (!a->empty()) expect_shape(name, *a, {audio.channels, g.audio_frames, audio.mel_bins});

    SampleState start = {empty_stream(c.video.in_channels, video_positions(g.frames, g.height, g.width, g.frame_rate)),
                         empty_stream(c.audio.in_channels, audio_positions(settings.audio ? g.audio_frames : 0))};
    if (!from.initial.video.empty()) start.video.latent = video_to_tokens(from.initial.video);
    if (settings.audio && !from.initial.audio.empty()) start.audio.latent = audio_to_tokens(from.initial.audio);
    for (const Keyframe& keyframe : from.keyframes) {
        expect_shape("a picture's latent", keyframe.latent, {c.video.in_channels, 1, g.height, g.width});
        if (keyframe.frame == 0 && !from.appends_first_frame)
            begin_with(start.video, g, keyframe);
        else
            append_keyframe(start.video, g, keyframe);
    }
    // Seeds do not use their upper bit: a clip that is refined gets other noise than it was made from.
    const bool refines = !from.initial.video.empty();
    const uint64_t seed = static_cast<uint64_t>(settings.seed) | static_cast<uint64_t>(refines) << 63;
    const auto drawn = [&](NoiseStream stream, const StreamState& s) {
        return normal_noise(seed, stream, s.num_tokens * s.channels);
    };
    const float first = settings.sigmas.front();
    std::vector<float> video_noise = drawn(NoiseStream::video, start.video);  // of appended tokens too
    if (!noise.video.empty()) {
        const std::vector<float> given = video_to_tokens(noise.video);
        std::copy(given.begin(), given.end(), video_noise.begin());
    }
    add_noise(start.video, video_noise, first);
    if (settings.audio)
        add_noise(start.audio,
                  noise.audio.empty() ? drawn(NoiseStream::audio, start.audio) : audio_to_tokens(noise.audio), first);
    Denoiser denoiser(transformer, workspace, context, negative, settings.guidance, start, trace, from.loras);
    const auto draw = [seed](const NoiseRequest& r) {
        const NoiseStream streams[2][2] = {{NoiseStream::audio, NoiseStream::audio_substep},
                                           {NoiseStream::video, NoiseStream::video_substep}};
        return normal_noise(seed, streams[r.video][r.kind], r.count, static_cast<uint32_t>(r.step + 1));
    };
    return std::make_unique<Sampler>(std::move(denoiser), std::move(start), settings.sigmas, settings.sampler, draw);
}

bool ClipPlan::draws_noise(const Noise& given, const std::vector<Condition>& conditions) const {
    const SampleSettings& s = stages.front().settings;
    const bool appends = std::any_of(conditions.begin(), conditions.end(), [&](const Condition& c) {
        return recipe->appends_first_frame || frame_of(c, s.num_frames) != 0;
    });
    const bool steps_draw = s.sampler != SamplerKind::euler && s.sampler != SamplerKind::gradient_estimation;
    return stages.size() > 1 || given.video.empty() || (s.audio && given.audio.empty()) || appends || steps_draw;
}

TwoRequests two_stages(const SampleOptions& options, const SampleSettings& alone, const UpscaleFactor& factor) {
    TwoRequests of{options, {}, {}};
    // A first stage has whole cells, and an even number of them where halves are taken of what three make.
    const int64_t up = factor.numerator, down = factor.denominator, unit = 32 * up;
    const auto rounded = [&](int64_t side) { return std::max<int64_t>(1, (side + unit / 2) / unit) * unit; };
    of.whole.width = options.width.value_or(rounded(alone.width * up / down));
    of.whole.height = options.height.value_or(rounded(alone.height * up / down));
    of.whole.num_frames = options.num_frames.value_or((alone.num_frames - 1) * factor.frames + 1);
    of.whole.frame_rate = options.frame_rate.value_or(alone.frame_rate * static_cast<double>(factor.frames));
    of.whole.seed = alone.seed;
    of.first = of.second = of.whole;

    const auto smaller = [&](const char* name, int64_t side) {
        if (side % unit)
            throw Error(ErrorCode::invalid_request, std::string("[two-stage] ") + name + " " + std::to_string(side) +
                                                        " cannot come of these upscalers; use a multiple of " +
                                                        std::to_string(unit) + ", such as " +
                                                        std::to_string(rounded(side)));
        return side / up * down;
    };
    of.first.width = smaller("width", *of.whole.width);
    of.first.height = smaller("height", *of.whole.height);
    for (int64_t i = factor.frames; i > 1; i /= 2) {
        if (*of.first.num_frames % 16 != 1)
            throw Error(ErrorCode::invalid_request, "[two-stage] " + std::to_string(*of.whole.num_frames) +
                                                        " frames cannot come of these upscalers; use a multiple of " +
                                                        std::to_string(8 * factor.frames) + ", plus 1");
        of.first.num_frames = (*of.first.num_frames + 1) / 2;
        of.first.frame_rate = *of.first.frame_rate / 2;
    }

    SampleOptions& second = of.second;
    second.num_inference_steps = std::nullopt;
    second.sigmas = distilled_stage_2_sigmas();
    second.guidance_scale = second.audio_guidance_scale = 1;
    second.stg_scale = second.audio_stg_scale = 0;
    second.modality_scale = second.audio_modality_scale = 1;
    second.guidance_rescale = second.audio_guidance_rescale = 0;
    second.guidance_skip_steps = second.audio_guidance_skip_steps = 0;
    return of;
}

bool is_distilled_lora(const std::string& path) {
    std::string name = path.substr(path.find_last_of('/') + 1);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name.find("distill") != std::string::npos;
}

std::vector<LoraFile> loras_of_stage(std::vector<LoraFile> asked, const std::string& distilled_lora, float strength) {
    const auto same = [&](const LoraFile& f) { return f.path == distilled_lora; };
    if (!distilled_lora.empty() && strength != 0 && std::none_of(asked.begin(), asked.end(), same))
        asked.push_back({distilled_lora, strength});
    return asked;
}

int64_t frame_of(const Condition& c, int64_t num_frames) { return c.frame < 0 ? num_frames + c.frame : c.frame; }

void check_frames(const std::vector<Condition>& conditions, int64_t num_frames) {
    std::set<int64_t> frames;
    for (const Condition& c : conditions) {
        const int64_t frame = frame_of(c, num_frames);
        if (frame < 0 || frame >= num_frames)
            throw Error(ErrorCode::invalid_request, "[image] there is no frame " + std::to_string(c.frame) +
                                                        " in a clip of " + std::to_string(num_frames) + "; use 0 to " +
                                                        std::to_string(num_frames - 1) + ", or -1 for the last one");
        if (!(c.strength >= 0 && c.strength <= 1))
            throw Error(ErrorCode::invalid_request, "[image] a strength must be between 0 and 1");
        if (!frames.insert(frame).second)
            throw Error(ErrorCode::invalid_request, "[image] two pictures are for frame " + std::to_string(frame) +
                                                        "; give each a frame of its own");
    }
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
