// From noisy latents to an estimate of the clean ones (sampling.md sections 3 and 4; ltx-pipelines denoisers).
#pragma once

#include <vector>

#include "guidance.h"
#include "sample_state.h"
#include "token_order.h"
#include "transformer_run.h"

namespace sdltx {

class Denoiser {
 public:
    // For states with the positions of `start`, one stream of which may have no tokens; the contexts must outlive it.
    // `negative` may be null without CFG; a frozen stream has none. keeps_text: see TransformerRun.
    Denoiser(Transformer& transformer, Workspace& workspace, const Context& context, const Context* negative,
             const Guidance& guidance, const SampleState& start, Trace* trace, std::shared_ptr<Loras> loras = nullptr,
             bool keeps_text = false);

    // What estimates take.
    MemoryUse measure();

    // Null for none.
    Loras* loras() const { return run_.loras(); }

    // x0 = x - tau velocity of both streams at noise level sigma, where tau = mask sigma, guided; conditioned tokens
    // are held. Only passes that count are run, all of them block by block. `step` counts from 0. `on_block` is called
    // after every block of the transformer with how many are done; what it throws comes out.
    Denoised operator()(const SampleState& state, float sigma, int64_t step, const TransformerRun::OnBlock& on_block);

 private:
    // Numbers of a kind of pass in the run; -1: there is none. A stream that skips a step is frozen.
    struct Variants {
        int both = -1, video_frozen = -1, audio_frozen = -1;
        int of(bool skip_video, bool skip_audio) const {
            return skip_video ? video_frozen : skip_audio ? audio_frozen : both;
        }
    };
    Variants add_passes(std::vector<Pass>& passes, const Pass& pass) const;
    std::vector<Pass> make_passes(const Context& context, const Context* negative);

    Guidance guidance_;
    bool with_video_, with_audio_, frozen_video_, frozen_audio_;
    TokenOrder video_order_, audio_order_;
    std::vector<int64_t> video_runs_, audio_runs_;  // lengths of runs of tokens that share a timestep
    Variants plain_, perturbed_, isolated_;
    int negative_ = -1;
    TransformerRun run_;
    Denoised last_;
};

}  // namespace sdltx
