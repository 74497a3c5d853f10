// One block of the transformer (transformer.md section 6; ltx-core BasicAVTransformerBlock): both streams, and what
// they see of each other.
#pragma once

#include <string>

#include "attention.h"
#include "config.h"
#include "modulation.h"

namespace sdltx {

// What weights are for, as Weights has it.
constexpr unsigned for_video = 1, for_audio = 2;

// Rows of the modulation tables; those of the text attention are missing in LTX-2.0.
enum BlockRow : int64_t {
    shift_msa,
    scale_msa,
    gate_msa,  // self attention
    shift_mlp,
    scale_mlp,
    gate_mlp,  // feed-forward
    shift_q,
    scale_q,
    gate_q,  // text attention
    all_block_rows
};
int64_t block_rows(const TransformerConfig& config);
enum PromptRow : int64_t { shift_kv, scale_kv, prompt_rows };
enum CrossRow : int64_t { scale_a2v, shift_a2v, scale_v2a, shift_v2a, cross_rows };  // a gate follows in the table

// The half of a block that belongs to one stream.
struct StreamBlock {
    Attention attn1, attn2, cross;  // self; text; this stream looks at the other
    FeedForward ff;
    ggml_tensor* scale_shift_table;         // [D, block rows]
    ggml_tensor* prompt_scale_shift_table;  // [D, prompt_rows], null without modulation of the text attention
    ggml_tensor* cross_scale_shift_table;   // [D, cross_rows + 1]
};
StreamBlock declare_stream_block(Weights& weights, const TransformerConfig& config, int64_t index, bool video);

struct Block {
    std::string name;  // "transformer_blocks.<i>"
    StreamBlock video, audio;
};

// What a block sees of a stream of T tokens, K of whose timesteps are distinct.
struct StreamTensors {
    ggml_tensor* x = nullptr;             // [D, T]
    ggml_tensor* context = nullptr;       // [context_dim, rows]
    Keys text{};                          // of the context for this block; null: made here
    ggml_tensor* adaln = nullptr;         // [block rows D, K]
    ggml_tensor* prompt_adaln = nullptr;  // [prompt_rows D, 1], null as the table is, and where that is all there is
    ggml_tensor* cross_adaln = nullptr;   // [cross_rows D, K]
    ggml_tensor* cross_gate = nullptr;    // [D, 1]
    const TokenRuns* runs = nullptr;      // which of the K timesteps the tokens have
    Rope self_rope, cross_rope;
    const AttentionBias* self_bias = nullptr;  // of self attention; null: all tokens count alike
};

// What guidance takes away from one block.
struct BlockPerturbation {
    bool skip_video_self_attn = false, skip_audio_self_attn = false;  // each token keeps its own value
    bool skip_cross_modal = false;                                    // the streams do not see each other
    bool freeze_video = false, freeze_audio = false;                  // stays as it is, and is looked at
};

// The context of a stream as a block's tokens look at it; nothing of it depends on them.
Keys text_keys(Plan& g, const StreamBlock& block, const StreamTensors& stream);

// Replaces x of both streams by what the block makes of it; one of them may be null. Stages: module paths, and
// "transformer_blocks.<i>.video" and ".audio" for the results.
void run_block(Plan& g, const Block& block, StreamTensors* video, StreamTensors* audio,
               const BlockPerturbation& without, float eps);

}  // namespace sdltx
