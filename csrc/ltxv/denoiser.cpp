#include "denoiser.h"

#include "conditioning.h"

namespace sdltx {

namespace {

std::vector<float> timesteps_of(const StreamState& s, float sigma) {
    std::vector<float> t(s.mask);
    for (float& v : t) v *= s.level(sigma);
    return t;
}

// Lengths of runs of tokens that share a timestep.
std::vector<int64_t> run_lengths(const StreamState& s, const TokenOrder& order) {
    std::vector<int64_t> lengths;
    const std::vector<float> mask = order.there(s.mask);
    for (size_t i = 0; i < mask.size(); ++i) {
        if (i == 0 || mask[i] != mask[i - 1]) lengths.push_back(0);
        ++lengths.back();
    }
    return lengths;
}

// What guidance is left of a stream: a frozen one has none.
GuidanceScales scales_of(const StreamState& s, const GuidanceScales& wanted) {
    return s.frozen || s.empty() ? GuidanceScales{} : wanted;
}
Guidance guidance_of(const SampleState& start, Guidance guidance) {
    guidance.video = scales_of(start.video, guidance.video);
    guidance.audio = scales_of(start.audio, guidance.audio);
    return guidance;
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
    v.both = add(pass.perturbation.freeze_video, pass.perturbation.freeze_audio);
    if (!with_video_ || !with_audio_ || frozen_video_ || frozen_audio_ ||
        guidance_.video.skip_steps == guidance_.audio.skip_steps)
        return v;
    if (guidance_.video.skip_steps) v.video_frozen = add(true, false);
    if (guidance_.audio.skip_steps) v.audio_frozen = add(false, true);
    return v;
}

std::vector<Pass> Denoiser::make_passes(const Context& context, const Context* negative) {
    std::vector<Pass> passes;
    // Contexts of what is not there are not looked at, and a frozen stream is told what the clip is in all passes.
    const auto pass_of = [&](const Context& of) {
        return Pass{!with_video_    ? nullptr
                    : frozen_video_ ? &context.video
                                    : &of.video,
                    !with_audio_    ? nullptr
                    : frozen_audio_ ? &context.audio
                                    : &of.audio,
                    {}};
    };
    Pass pass = pass_of(context);
    plain_ = add_passes(passes, pass);
    if (guidance_.needs_negative()) {
        negative_ = static_cast<int>(passes.size());
        passes.push_back(pass_of(*negative));
    }
    if (guidance_.needs_perturbed()) {
        if (guidance_.video.stg != 0) pass.perturbation.skip_video_self_attn = guidance_.stg_blocks;
        if (guidance_.audio.stg != 0) pass.perturbation.skip_audio_self_attn = guidance_.stg_blocks;
        perturbed_ = add_passes(passes, pass);
        pass.perturbation = {};
    }
    if (guidance_.needs_isolated()) {
        pass.perturbation.skip_cross_modal = true;
        // Nobody looks at a frozen stream then.
        pass.perturbation.freeze_video = frozen_video_;
        pass.perturbation.freeze_audio = frozen_audio_;
        isolated_ = add_passes(passes, pass);
    }
    return passes;
}

Denoiser::Denoiser(Transformer& transformer, Workspace& workspace, const Context& context, const Context* negative,
                   const Guidance& guidance, const SampleState& start, Trace* trace, std::shared_ptr<Loras> loras,
                   bool keeps_text)
    : guidance_(guidance_of(start, guidance)),
      with_video_(!start.video.empty()),
      with_audio_(!start.audio.empty()),
      frozen_video_(start.video.frozen),
      frozen_audio_(start.audio.frozen),
      video_order_(start.video),
      audio_order_(start.audio),
      video_runs_(run_lengths(start.video, video_order_)),
      audio_runs_(run_lengths(start.audio, audio_order_)),
      run_([&] {
          const Positions video = video_order_.positions(start.video.positions),
                          audio = audio_order_.positions(start.audio.positions);
          const RunStreams streams{with_video_ ? &video : nullptr, with_audio_ ? &audio : nullptr, start.video.groups};
          return TransformerRun(transformer, workspace, streams, make_passes(context, negative), trace,
                                std::move(loras), keeps_text);
      }()) {}

MemoryUse Denoiser::measure() { return run_.measure(video_runs_, audio_runs_); }

Denoised Denoiser::operator()(const SampleState& state, float sigma, int64_t step,
                              const TransformerRun::OnBlock& on_block) {
    const auto skips = [&](const GuidanceScales& s) { return s.skip_steps && step % (s.skip_steps + 1) != 0; };
    // A stream that is given, or not there, goes along with the other.
    const bool video_leads = !with_audio_ || frozen_audio_, audio_leads = !with_video_ || frozen_video_;
    const bool skip_video = skips(audio_leads ? guidance_.audio : guidance_.video),
               skip_audio = skips(video_leads ? guidance_.video : guidance_.audio);
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
    std::vector<Velocity> v;
    {
        const auto video_tokens = video_order_.there(state.video.latent),
                   video_times = video_order_.there(video_timesteps),
                   audio_tokens = audio_order_.there(state.audio.latent),
                   audio_times = audio_order_.there(audio_timesteps);
        const StreamInput video{&video_tokens, &video_times, state.video.level(sigma)},
            audio{&audio_tokens, &audio_times, state.audio.level(sigma)};
        v = run_.velocities(with_video_ ? &video : nullptr, with_audio_ ? &audio : nullptr, which, on_block);
    }
    for (Velocity& of_pass : v) {
        of_pass.video = video_order_.back(of_pass.video);
        of_pass.audio = audio_order_.back(of_pass.audio);
    }
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
    if (with_video_ && !skip_video)
        last_.video = guided_estimate(state.video, video_timesteps, guidance_.video, &Velocity::video);
    if (with_audio_ && !skip_audio)
        last_.audio = guided_estimate(state.audio, audio_timesteps, guidance_.audio, &Velocity::audio);
    return last_;
}

}  // namespace sdltx
