// The joint video and audio diffusion transformer of LTX-2.3 (transformer.md; ltx-core LTXModel).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "config.h"
#include "rope.h"
#include "types.h"

namespace sdltx {

// What the transformer sees of one stream in one call.
struct ModalityInput {
    const std::vector<float>* tokens = nullptr;     // (T, C)
    const std::vector<float>* timesteps = nullptr;  // (T), denoise mask times sigma
    const Positions* positions = nullptr;
    const Array* context = nullptr;  // (rows, context_dim)
    float sigma = 0;                 // of the schedule
};

// What guidance may take away from one call.
struct Perturbation {
    std::vector<int> skip_video_self_attn;  // blocks where each token keeps its own value
    std::vector<int> skip_audio_self_attn;
    bool skip_cross_modal = false;  // audio and video do not see each other, in all blocks

    bool operator==(const Perturbation& o) const {
        return skip_video_self_attn == o.skip_video_self_attn && skip_audio_self_attn == o.skip_audio_self_attn &&
               skip_cross_modal == o.skip_cross_modal;
    }
};

struct Velocity {
    std::vector<float> video, audio;  // (T, C)
};

class Transformer {
 public:
    Transformer(const ModelFiles& files, const Backend& backend, const TransformerConfig& config);
    ~Transformer();

    const TransformerConfig& config() const { return config_; }
    Weights& weights() { return weights_; }

    // Predicts noise - x0 per token. `audio` may be null: the video runs alone. Graphs are kept and reused while shapes
    // stay. Stages: reference module paths, "transformer_blocks.<i>.video" and ".audio" for a block's results.
    Velocity velocity(const ModalityInput& video, const ModalityInput* audio, const Perturbation& perturbation,
                      Trace* trace);
    // Gives the memory of all kept graphs back.
    void release();

 private:
    // A timestep embedding and the modulation rows made from it (ltx-core AdaLayerNormSingle).
    struct AdaLayerNormSingle {
        std::string name;
        Linear linear_1, linear_2, linear;
        int64_t dim, rows;
    };
    // The half of a block that belongs to one stream.
    struct StreamBlock {
        Attention attn1, attn2, cross;  // cross: this stream looks at the other
        FeedForward ff;
        ggml_tensor *scale_shift_table, *prompt_scale_shift_table, *cross_scale_shift_table;
    };
    struct Stream {
        std::string prefix;  // "" or "audio_"
        StreamConfig config;
        Linear patchify_proj, proj_out;
        AdaLayerNormSingle adaln, prompt_adaln, cross_scale_shift_adaln, cross_gate_adaln;
        ggml_tensor* scale_shift_table;
        std::vector<StreamBlock> blocks;
    };
    struct StreamGraph;
    struct Built;

    AdaLayerNormSingle declare_adaln(const std::string& name, int64_t dim, int64_t rows);
    Stream declare_stream(bool video);
    void stream_inputs(Graph& g, const Stream& s, StreamGraph& sg, const ModalityInput& in, int64_t distinct,
                       bool cross) const;
    void run_block(Graph& g, const Stream& s, size_t i, StreamGraph& sg, bool values_only) const;
    ggml_tensor* velocity_head(Graph& g, const Stream& s, const StreamGraph& sg) const;
    void set_inputs(const Stream& s, StreamGraph& sg, Graph& g, const ModalityInput& in,
                    const ModalityInput* other) const;
    Built& build(const ModalityInput& video, const ModalityInput* audio, const Perturbation& perturbation,
                 Trace* trace);

    const Backend& backend_;
    TransformerConfig config_;
    Weights weights_;
    Stream video_, audio_;
    std::vector<std::unique_ptr<Built>> graphs_;
};

}  // namespace sdltx
