// The joint video and audio diffusion transformer of LTX-2 (transformer.md; ltx-core LTXModel): its weights, and what
// comes before and after its blocks. TransformerRun computes with it.
#pragma once

#include <string>
#include <vector>

#include "transformer_block.h"

namespace sdltx {

class Transformer {
 public:
    Transformer(const ModelFiles& files, const Backend& backend, const TransformerConfig& config);

    const TransformerConfig& config() const { return config_; }
    Weights& weights() { return weights_; }
    // Weights of a stream that is not there, and of what the streams see of each other, need not be there either.
    void use_streams(bool video, bool audio);

    // What belongs to one stream, but for its half of the blocks.
    struct Stream {
        std::string prefix;  // "" or "audio_"
        StreamConfig config;
        Linear patchify_proj, proj_out;
        AdaLayerNormSingle adaln, cross_scale_shift_adaln, cross_gate_adaln;
        AdaLayerNormSingle prompt_adaln;  // with modulation of the text attention
        ggml_tensor* scale_shift_table;   // [D, 2]
    };
    const Stream& video() const { return video_; }
    const Stream& audio() const { return audio_; }
    const std::vector<Block>& blocks() const { return blocks_; }
    // Whether it tells tokens of single pictures from others.
    bool marks() const { return keyframes_abs_pos_embedding_ != nullptr; }
    // Whether text looks the same in every step, as in LTX-2.0.
    bool text_is_static() const { return !config_.prompt_adaln; }

    // tokens [in_channels, T] -> x [D, T]
    ggml_tensor* patchify(Plan& g, const Stream& s, ggml_tensor* tokens) const;
    // x [D, T] with the marker of single pictures on the tokens of these runs, of the video stream (ltx-2.5.md section
    // 3); x is used up, so that the stage "patchify_proj" has the marker, too.
    ggml_tensor* mark(Plan& g, ggml_tensor* x, const TokenRuns& runs) const;
    // x [D, T] after the last block, embedded timesteps [D, K] -> velocity [out_channels, T]
    ggml_tensor* head(Plan& g, const Stream& s, ggml_tensor* x, ggml_tensor* embedded, const TokenRuns& runs) const;

 private:
    Stream declare_stream(bool video);

    TransformerConfig config_;
    Weights weights_;
    Stream video_, audio_;
    std::vector<Block> blocks_;
    ggml_tensor* keyframes_abs_pos_embedding_ = nullptr;  // [D]
};

}  // namespace sdltx
