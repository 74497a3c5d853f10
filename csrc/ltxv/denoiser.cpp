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
    return x0;
}

}  // namespace

Denoiser::Variants Denoiser::add_passes(std::vector<Pass>& passes, const Pass& pass) const {
    const auto add = [&](bool freeze_video, bool freeze_audio) {
        passes.push_back(pass);
        passes.back().perturbation.freeze_video = freeze_video;
        passes.back().perturbation.freeze_audio = freeze_audio;
        return static_cast<int>(passes.size()) - 1;
    };
    Variants v;
    v.both = add(false, false);
    if (!with_audio_ || guidance_.video.skip_steps == guidance_.audio.skip_steps) return v;
    if (guidance_.video.skip_steps) v.video_frozen = add(true, false);
    if (guidance_.audio.skip_steps) v.audio_frozen = add(false, true);
    return v;
}

std::vector<Pass> Denoiser::make_passes(const Context& context, const Context* negative) {
    std::vector<Pass> passes;
    Pass pass{&context.video, with_audio_ ? &context.audio : nullptr, {}};
    plain_ = add_passes(passes, pass);
    if (guidance_.needs_negative()) {
        negative_ = static_cast<int>(passes.size());
        passes.push_back({&negative->video, with_audio_ ? &negative->audio : nullptr, {}});
    }
    if (guidance_.needs_perturbed()) {
        if (guidance_.video.stg != 0) pass.perturbation.skip_video_self_attn = guidance_.stg_blocks;
        if (guidance_.audio.stg != 0) pass.perturbation.skip_audio_self_attn = guidance_.stg_blocks;
        perturbed_ = add_passes(passes, pass);
        pass.perturbation = {};
    }
    if (guidance_.needs_isolated()) {
        pass.perturbation.skip_cross_modal = true;
        isolated_ = add_passes(passes, pass);
    }
    return passes;
}

Denoiser::Denoiser(Transformer& transformer, Workspace& workspace, const Context& context, const Context* negative,
                   const Guidance& guidance, const SampleState& start, Trace* trace, std::shared_ptr<Loras> loras,
                   bool keeps_text)
    : guidance_(guidance),
      with_audio_(start.audio.num_tokens > 0),
      run_(transformer, workspace, start.video.positions, with_audio_ ? &start.audio.positions : nullptr,
           make_passes(context, negative), trace, std::move(loras), keeps_text) {}

Denoised Denoiser::operator()(const SampleState& state, float sigma, int64_t step,
                              const TransformerRun::OnBlock& on_block) {
    const auto skips = [&](const GuidanceScales& s) { return s.skip_steps && step % (s.skip_steps + 1) != 0; };
    const bool skip_video = skips(guidance_.video), skip_audio = with_audio_ ? skips(guidance_.audio) : skip_video;
    if (skip_video && skip_audio) return last_;

    std::vector<int> which{plain_.of(skip_video, skip_audio)};
    const bool guided = guidance_.active(sigma);
    const auto want = [&](int pass) {
        if (guided && pass >= 0) which.push_back(pass);
        return guided ? pass : -1;
    };
    const int plain = which.front(), negative = want(negative_),
              perturbed = want(perturbed_.of(skip_video, skip_audio)),
              isolated = want(isolated_.of(skip_video, skip_audio));

    const auto video_timesteps = timesteps_of(state.video, sigma), audio_timesteps = timesteps_of(state.audio, sigma);
    const StreamInput video{&state.video.latent, &video_timesteps, sigma},
        audio{&state.audio.latent, &audio_timesteps, sigma};
    const std::vector<Velocity> v = run_.velocities(video, with_audio_ ? &audio : nullptr, which, on_block);
    const auto guided_estimate = [&](const StreamState& s, const std::vector<float>& timesteps,
                                     const GuidanceScales& scales, std::vector<float> Velocity::* stream) {
        std::vector<std::vector<float>> x0(v.size());
        const auto of = [&](int pass) -> const std::vector<float>* {
            if (pass < 0) return nullptr;
            const auto i = static_cast<size_t>(pass);
            x0[i] = denoised(s, v[i].*stream, timesteps);
            return &x0[i];
        };
        const PassEstimates estimates{of(plain), of(negative), of(perturbed), of(isolated)};
        std::vector<float> y = guided ? guide(guidance_, scales, estimates) : *estimates.plain;
        hold_conditioned(s, y);
        return y;
    };
    if (!skip_video) last_.video = guided_estimate(state.video, video_timesteps, guidance_.video, &Velocity::video);
    if (with_audio_ && !skip_audio)
        last_.audio = guided_estimate(state.audio, audio_timesteps, guidance_.audio, &Velocity::audio);
    return last_;
}

}  // namespace sdltx
