// The networks that a set of files makes up: declared and checked; their weights come when they are needed.
#pragma once

#include <memory>
#include <vector>

#include "base/problems.h"
#include "info.h"
#include "ltxv/audio_vae.h"
#include "ltxv/duration_head.h"
#include "ltxv/text_projection.h"
#include "ltxv/transformer.h"
#include "ltxv/video_encoder.h"
#include "ltxv/video_vae.h"
#include "ltxv/vocoder.h"
#include "text_encoder.h"

namespace sdltx {

struct Networks {
    // Both arguments must outlive it. Throws Error(model_file | model_mismatch) for files that do not make up the
    // networks of `config`; with `problems` it goes on instead, without what cannot be declared.
    Networks(const ModelFiles& files, const ModelConfig& config, Workspace& workspace, Problems* problems = nullptr);

    std::vector<Weights*> weights() const;

    std::unique_ptr<Tokenizer> tokenizer;
    std::unique_ptr<TextTower> text_encoder;
    std::unique_ptr<TextProjection> text_projection;  // of no use without a text encoder
    std::unique_ptr<DurationHead> duration_head;
    std::unique_ptr<Transformer> transformer;
    std::unique_ptr<VideoDecoder> video_decoder;
    std::unique_ptr<VideoEncoder> video_encoder;
    std::unique_ptr<AudioDecoder> audio_decoder;
    std::unique_ptr<Vocoder> vocoder;
    std::unique_ptr<AudioEncoder> audio_encoder;
    std::vector<Part> parts;                    // that are there, in the order of all_parts
    std::vector<const TensorInfo*> unused;      // tensors of the files that no network has a use for
    std::vector<const TensorInfo*> unexpected;  // those of them that lie among the weights of a network that is there
};

}  // namespace sdltx
