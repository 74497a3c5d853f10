// From Gemma's hidden states to what the transformer attends to (text.md sections 3 to 5): a feature extractor, then
// one connector per stream that replaces padding by registers. Extractor V1, one for both streams, and a projection of
// what the connectors give belong to LTX-2.0.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention.h"
#include "base/types.h"
#include "config.h"
#include "ggml/workspace.h"

namespace sdltx {

class TextProjection {
 public:
    static constexpr int64_t context_rows = 1024;  // of every context, real tokens first
    static constexpr int64_t num_registers = 128;  // a constant of the reference; its config key is never read

    // gemma_layers: hidden states per token, L + 1.
    TextProjection(const ModelFiles& files, Workspace& workspace, const TransformerConfig& config, int64_t gemma_hidden,
                   int64_t gemma_states);

    std::vector<Weights*> weights() { return {&projection_, &connectors_}; }

    // hidden_states (L+1, N, hidden), N <= 1024 -> contexts of 1024 rows. Stages: "video_features", "audio_features",
    // "<kind>_embeddings_connector.input", "<kind>_embeddings_connector.transformer_1d_blocks.<i>" and ".output".
    Context encode(const Array& hidden_states, Trace* trace) const;
    // What it takes for so many tokens, without their hidden states.
    MemoryUse measure(int64_t tokens) const;

 private:
    struct Block {
        Attention attn1;
        FeedForward ff;
    };
    struct Stream {
        std::string kind;
        Linear aggregate_embed;                               // V1: the same for both
        std::shared_ptr<const std::vector<float>> registers;  // (128, width)
        std::vector<Block> blocks;
        int64_t width, heads;
        Linear caption_1, caption_2;  // LTX-2.0
    };
    Stream declare_stream(const std::string& kind, const StreamConfig& s, int64_t layers);
    struct LayerScale {
        float shift, factor;
    };
    // V1: mean and range of each layer over all tokens of the prompt.
    std::vector<LayerScale> scales_v1(const Array& hidden_states) const;
    // What the extractor multiplies: the hidden states of tokens [first, first + count), the layer axis the fast one.
    // Without `scales` each token and layer is divided by its RMS (V2).
    void normalise(const Array& hidden_states, const std::vector<LayerScale>& scales, int64_t first, int64_t count,
                   std::vector<float>& to) const;
    struct Extractor {
        std::unique_ptr<Plan> plan;
        ggml_tensor* in;
        std::array<ggml_tensor*, 2> out;
    };
    Extractor extractor(int64_t tokens) const;
    struct Connector {
        std::unique_ptr<Plan> plan;
        ggml_tensor* in;
        Rope rope;
        ggml_tensor* out;
    };
    Connector connector(const Stream& s, Trace* trace) const;
    std::array<std::vector<float>, 2> extract(const Array& hidden_states) const;  // features of both streams
    Array connect(const Stream& s, const std::vector<float>& features, int64_t tokens, Trace* trace) const;

    Workspace& workspace_;
    TransformerConfig config_;
    int64_t hidden_, states_;
    Weights projection_, connectors_;
    Stream video_, audio_;
};

}  // namespace sdltx
