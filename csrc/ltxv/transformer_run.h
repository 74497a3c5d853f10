// Calls of the transformer on one clip: the plans of its blocks and the tensors that live from one to the next. Blocks
// run outside, guidance passes inside, so that a block that has to be brought in serves every pass.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"
#include "ggml/stream.h"
#include "ggml/workspace.h"
#include "lora.h"
#include "rope.h"
#include "token_groups.h"
#include "transformer.h"

namespace sdltx {

// What one pass may lack.
struct Perturbation {
    std::vector<int> skip_video_self_attn;  // blocks where each token keeps its own value
    std::vector<int> skip_audio_self_attn;
    bool skip_cross_modal = false;  // audio and video do not see each other, in all blocks
    // A stream that stays as it goes in, and is looked at all the same; its velocity means nothing.
    bool freeze_video = false, freeze_audio = false;
};

// One look at the latents: what it attends to, and what it goes without.
struct Pass {
    const Array* video_context = nullptr;  // (rows, context_dim), null without a video stream
    const Array* audio_context = nullptr;  // null without an audio stream
    Perturbation perturbation;
};

// What the transformer sees of one stream in one call.
struct StreamInput {
    const std::vector<float>* tokens = nullptr;     // (T, C)
    const std::vector<float>* timesteps = nullptr;  // (T), denoise mask times sigma
    float sigma = 0;                                // of the schedule
};

struct Velocity {
    std::vector<float> video, audio;  // (T, C)
};

// The streams of all calls; one of them may be missing.
struct RunStreams {
    const Positions *video = nullptr, *audio = nullptr;
    TokenGroups video_groups{};
};

class TransformerRun {
 public:
    // Contexts must outlive the run. keeps_text: keys of the contexts stay from call to call where they do not depend
    // on the noise; see Transformer::text_is_static(). Throws Error(invalid_request) for blocks that do not exist.
    TransformerRun(Transformer& transformer, Workspace& workspace, const RunStreams& streams,
                   const std::vector<Pass>& passes, Trace* trace, std::shared_ptr<Loras> loras = nullptr,
                   bool keeps_text = false);
    ~TransformerRun();
    TransformerRun(TransformerRun&&) noexcept;

    // Null for none; their weights must be there as the transformer's are.
    Loras* loras() const { return loras_.get(); }

    // Called after every block with how many are done.
    using OnBlock = std::function<void(int64_t done)>;
    // Predicts noise - x0 per token, once for each of the passes in `which`; the others' results are empty. The weights
    // outside the blocks must be there. Stages: reference module paths, "transformer_blocks.<i>.video" and ".audio" for
    // a block's results.
    // Inputs are null for streams that are missing.
    std::vector<Velocity> velocities(const StreamInput* video, const StreamInput* audio, const std::vector<int>& which,
                                     const OnBlock& on_block = {});

    // What a call takes; nothing is allocated. For each stream: how many tokens one after the other share a timestep;
    // empty: all of them.
    MemoryUse measure(const std::vector<int64_t>& video = {}, const std::vector<int64_t>& audio = {});

 private:
    struct Looked;
    struct Place;
    struct StreamRun;
    struct Plans;

    std::unique_ptr<StreamRun> begin_stream(const Transformer::Stream& stream, const Positions& positions);
    std::vector<std::vector<Keys>> text_tensors(const Transformer::Stream& stream, State& state, size_t device) const;
    std::vector<StreamRun*> streams() const;
    // Forgets the plans unless they fit.
    void set_runs(const TokenRuns& video, const TokenRuns& audio);
    const TokenRuns& runs_of(const StreamRun& s) const;
    void set_constants(StreamRun& s);
    void set_bias(const StreamRun& s);
    // Values that the prologue has computed, or the blocks of the device before: to all devices, or to one of them.
    void share_prologue();
    void hand_over(size_t pass, size_t from, size_t to);
    void set_input(StreamRun& s, const StreamInput& in, const StreamInput* other);
    std::unique_ptr<Plan> make_plan(size_t device = 0) const;
    Plan& prologue();
    void prepare_text(size_t index, const std::vector<int>& which);
    Plan& text(size_t looked, size_t index);
    Plan& block(size_t pass, size_t index);
    Plan& epilogue(size_t pass);

    Transformer& transformer_;
    Workspace& workspace_;
    std::vector<Pass> passes_;
    Trace* trace_;
    std::shared_ptr<Loras> loras_;
    bool keeps_text_;
    std::vector<Looked> looked_;
    TokenGroups video_groups_;
    bool cross_;  // some pass lets the streams see each other
    bool constants_set_ = false;
    std::vector<std::unique_ptr<State>> states_;  // by device
    std::unique_ptr<StreamRun> video_, audio_;    // one may be null
    std::unique_ptr<Plans> plans_;
    std::unique_ptr<Stream> stream_;
};

}  // namespace sdltx
