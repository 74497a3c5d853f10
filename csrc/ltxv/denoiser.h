// From noisy latents to an estimate of the clean ones (sampling.md sections 3 and 4; ltx-pipelines denoisers).
#pragma once

#include "sample_state.h"
#include "transformer_run.h"

namespace sdltx {

class Denoiser {
 public:
    // For states with the positions of `start`; `context` must outlive it.
    Denoiser(Transformer& transformer, Workspace& workspace, const Context& context, const SampleState& start,
             Trace* trace);

    // x0 = x - tau velocity of both streams at noise level sigma, where tau = mask sigma; conditioned tokens are held.
    // `on_block` is called after every block of the transformer with how many are done; what it throws comes out.
    Denoised operator()(const SampleState& state, float sigma, const TransformerRun::OnBlock& on_block);

 private:
    TransformerRun run_;
};

}  // namespace sdltx
