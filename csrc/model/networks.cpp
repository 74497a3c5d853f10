#include "networks.h"

#include <algorithm>

namespace sdltx {

namespace {

// Without a text encoder among the files, the projection itself tells how many states of one it takes.
int64_t states_of(const ModelFiles& files, const TransformerConfig& c) {
    const std::string which = c.caption_projection ? "aggregate_embed" : "video_aggregate_embed";
    const TensorInfo* t = files.find("text_embedding_projection." + which + ".weight");
    return t && t->shape.size() == 2 ? t->shape[1] / c.caption_channels : 1;
}

}  // namespace

Networks::Networks(const ModelFiles& files, const ModelConfig& config, Workspace& workspace, Problems* problems) {
    if (config.transformer)
        attempt(problems, [&] {
            transformer = std::make_unique<Transformer>(files, workspace.backend(), *config.transformer);
            parts.push_back(Part::transformer);
        });
    if (files.find("language_model.model.embed_tokens.weight"))
        attempt(problems, [&] {
            text_encoder = make_text_encoder(files, config, workspace);
            parts.push_back(Part::text_encoder);
        });
    if (config.transformer && files.has_prefix("text_embedding_projection."))
        attempt(problems, [&] {
            const TransformerConfig& c = *config.transformer;
            const int64_t hidden = text_encoder ? text_encoder->hidden_size() : c.caption_channels;
            const int64_t states = text_encoder ? text_encoder->num_hidden_layers() + 1 : states_of(files, c);
            text_projection = std::make_unique<TextProjection>(files, workspace, c, hidden, states);
            parts.push_back(Part::text_projection);
        });
    if (config.vae)
        attempt(problems, [&] {
            video_decoder = std::make_unique<VideoDecoder>(files, workspace, *config.vae);
            parts.push_back(Part::video_decoder);
        });
    if (config.vae && !config.vae->encoder_blocks.empty())
        attempt(problems, [&] {
            video_encoder = std::make_unique<VideoEncoder>(files, workspace, *config.vae);
            parts.push_back(Part::video_encoder);
        });
    if (config.audio_vae)
        attempt(problems, [&] {
            audio_decoder = std::make_unique<AudioDecoder>(files, workspace, *config.audio_vae);
            parts.push_back(Part::audio_decoder);
        });
    if (config.audio_vae && config.vocoder)
        attempt(problems, [&] {
            vocoder = std::make_unique<Vocoder>(files, workspace, *config.vocoder, config.audio_vae->mel_bins);
            parts.push_back(Part::vocoder);
        });
    if (config.audio_vae && files.has_prefix("audio_vae.encoder."))
        attempt(problems, [&] {
            audio_encoder = std::make_unique<AudioEncoder>(files, workspace, *config.audio_vae);
            parts.push_back(Part::audio_encoder);
        });
    if (files.has_prefix("duration_head."))
        attempt(problems, [&] {
            duration_head = std::make_unique<DurationHead>(files, workspace);
            parts.push_back(Part::duration_head);
        });
    if (problems) {
        for (const Weights* w : weights())
            for (auto& p : w->problems()) problems->push_back(std::move(p));
    } else {
        check_weights(weights());
    }
    for (auto& file : files.files())
        for (auto& t : file->tensors()) {
            if (t.used) continue;
            unused.push_back(&t);
            const auto network = owner_of(t.name).network;
            if (network && std::find(parts.begin(), parts.end(), *network) != parts.end()) unexpected.push_back(&t);
        }
    if (text_encoder) attempt(problems, [&] { tokenizer = load_tokenizer(files); });
}

std::vector<Weights*> Networks::weights() const {
    std::vector<Weights*> all;
    if (transformer) all.push_back(&transformer->weights());
    if (text_encoder) all.push_back(&text_encoder->weights());
    if (text_projection)
        for (Weights* w : text_projection->weights()) all.push_back(w);
    if (video_decoder) all.push_back(&video_decoder->weights());
    if (video_encoder) all.push_back(&video_encoder->weights());
    if (audio_decoder) all.push_back(&audio_decoder->weights());
    if (vocoder) all.push_back(&vocoder->weights());
    if (audio_encoder) all.push_back(&audio_encoder->weights());
    if (duration_head) all.push_back(&duration_head->weights());
    return all;
}

}  // namespace sdltx
