// How long the clip of a prompt is to be (ltx-2.5.md section 8; ltx-core's duration head).
#pragma once

#include <cstdint>

#include "base/types.h"
#include "ggml/linear.h"
#include "ggml/workspace.h"

namespace sdltx {

class DurationHead {
 public:
    // Throws Error(model_mismatch) for tensors that are none.
    DurationHead(const ModelFiles& files, Workspace& workspace);

    Weights& weights() { return weights_; }

    // Seconds, as the connectors' contexts of a prompt tell: video (rows, width), audio (rows, width), all rows; either
    // may be empty. Throws Error(model_mismatch) for contexts of another width, Error(backend) for what is no number.
    // Stages: "duration_head.attention_pooler", "duration_head.mlp_hidden".
    double seconds(const Context& context, Trace* trace) const;
    // What it takes for contexts of so many rows each.
    MemoryUse measure(int64_t rows) const;

 private:
    struct Stream {
        Linear input_proj;
        ggml_tensor* modality_emb;  // [D]
        int64_t width;
    };
    struct Built {
        std::unique_ptr<Plan> plan;
        ggml_tensor *video = nullptr, *audio = nullptr;  // [width, rows]
        ggml_tensor* log_seconds = nullptr;              // [1]
    };
    Stream declare_stream(const ModelFiles& files, const std::string& name);
    Built build(int64_t video_rows, int64_t audio_rows, Trace* trace) const;

    Workspace& workspace_;
    Weights weights_;
    int64_t dim_ = 0, queries_ = 0, heads_ = 0;
    Stream video_, audio_;
    ggml_tensor* query_tokens_;  // [D, queries]
    Linear in_proj_, out_proj_, mlp_hidden_, mlp_out_;
};

// The most frames that a clip of so many seconds has room for, 8 k + 1, within 1 and 20 seconds as the head was trained
// for; unit: a multiple of 8 in its place.
SDLTX_EXPORT int64_t frames_of_duration(double seconds, double frame_rate, int64_t unit = 8);

}  // namespace sdltx
