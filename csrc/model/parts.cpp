#include "parts.h"

#include "base/error.h"

namespace sdltx {

namespace {

// In the order of the enum.
constexpr const char* part_names[] = {"transformer",   "text encoder",  "text projection",
                                      "video decoder", "video encoder", "audio decoder",
                                      "vocoder",       "audio encoder", "duration head"};

struct Prefix {
    const char* prefix;
    Owner owner;
};

// The first that fits.
constexpr Prefix places[] = {
    {"model.diffusion_model.video_embeddings_connector.", {"text projection", Part::text_projection}},
    {"model.diffusion_model.audio_embeddings_connector.", {"text projection", Part::text_projection}},
    {"model.diffusion_model.caption_projection.", {"text projection", Part::text_projection}},
    {"model.diffusion_model.audio_caption_projection.", {"text projection", Part::text_projection}},
    {"text_embedding_projection.", {"text projection", Part::text_projection}},
    {"duration_head.", {"duration head", Part::duration_head}},
    {"model.diffusion_model.", {"transformer", Part::transformer}},
    {"language_model.model.", {"text encoder", Part::text_encoder}},
    {"vae.decoder.", {"video decoder", Part::video_decoder}},
    {"vae.per_channel_statistics.", {"video decoder", std::nullopt}},
    {"vae.encoder.", {"video encoder", Part::video_encoder}},
    {"audio_vae.decoder.", {"audio decoder", Part::audio_decoder}},
    {"audio_vae.per_channel_statistics.", {"audio decoder", std::nullopt}},
    {"audio_vae.encoder.", {"audio encoder", Part::audio_encoder}},
    {"vocoder.mel_stft.", {"vocoder", std::nullopt}},
    {"vocoder.", {"vocoder", Part::vocoder}},
    {"vision_tower.", {"vision tower", std::nullopt}},
    {"vision_model.", {"vision tower", std::nullopt}},
    {"multi_modal_projector.", {"vision tower", std::nullopt}},
    {"audio_projector.", {"vision tower", std::nullopt}},
    {"model.vision_embedder.", {"vision tower", std::nullopt}},
    {"model.embed_vision.", {"vision tower", std::nullopt}},
    {"model.embed_audio.", {"vision tower", std::nullopt}},
    {"tokenizer_json", {"tokenizer", std::nullopt}},
    {"hf_asset__", {"tokenizer", std::nullopt}},
    {"spiece_model", {"tokenizer", std::nullopt}},
};

}  // namespace

const char* name_of(Part part) { return part_names[static_cast<size_t>(part)]; }

Part part_of(const std::string& name) {
    for (Part part : all_parts)
        if (name == name_of(part)) return part;
    throw Error(ErrorCode::invalid_request, "[load] there is no part '" + name + "'");
}

Owner owner_of(const std::string& tensor) {
    for (auto& p : places)
        if (tensor.rfind(p.prefix, 0) == 0) return p.owner;
    return {"other", std::nullopt};
}

}  // namespace sdltx
