#include "denoiser.h"

#include "conditioning.h"

namespace sdltx {

namespace {

std::vector<float> timesteps_of(const StreamState& s, float sigma) {
    std::vector<float> t(s.mask);
    for (float& v : t) v *= sigma;
    return t;
}

std::vector<float> denoised(const StreamState& s, const std::vector<float>& velocity,
                            const std::vector<float>& timesteps) {
    std::vector<float> x0(velocity.size());
    for (size_t i = 0; i < x0.size(); ++i)
        x0[i] = s.latent[i] - timesteps[i / static_cast<size_t>(s.channels)] * velocity[i];
    hold_conditioned(s, x0);
    return x0;
}

}  // namespace

Denoiser::Denoiser(Transformer& transformer, Workspace& workspace, const Context& context, const SampleState& start,
                   Trace* trace)
    : run_(transformer, workspace, start.video.positions, &start.audio.positions,
           {{&context.video, &context.audio, {}}}, trace) {}

Denoised Denoiser::operator()(const SampleState& state, float sigma, const TransformerRun::OnBlock& on_block) {
    const auto video_timesteps = timesteps_of(state.video, sigma), audio_timesteps = timesteps_of(state.audio, sigma);
    const StreamInput video{&state.video.latent, &video_timesteps, sigma},
        audio{&state.audio.latent, &audio_timesteps, sigma};
    const Velocity v = std::move(run_.velocities(video, &audio, on_block).front());
    return {denoised(state.video, v.video, video_timesteps), denoised(state.audio, v.audio, audio_timesteps)};
}

}  // namespace sdltx
