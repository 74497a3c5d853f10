#include "names.h"

#include <algorithm>
#include <cstring>

namespace sdltx {

namespace {

// The names of the single-file checkpoint and of Hugging Face's Gemma 3 are the canonical ones.
constexpr const char* canonical[] = {
    "model.diffusion_model.", "vae.",          "audio_vae.", "vocoder.", "text_embedding_projection.",
    "language_model.model.",  "duration_head."};

// A set of files that holds `probe` (of rank `rank`; 0 = any) has its names starting with `strip` moved below `add`.
struct PrefixRule {
    const char* probe;
    size_t rank;
    const char* strip;
    const char* add;
};

constexpr PrefixRule prefix_rules[] = {
    {"diffusion_model.patchify_proj.weight", 0, "diffusion_model.", "model.diffusion_model."},
    {"patchify_proj.weight", 0, "", "model.diffusion_model."},
    {"video_embeddings_connector.learnable_registers", 0, "", "model.diffusion_model."},
    {"embeddings_connector.learnable_registers", 0, "", "model.diffusion_model."},
    {"decoder.conv_in.conv.weight", 5, "", "vae."},
    {"decoder.conv_in.conv.weight", 4, "", "audio_vae."},
    {"model.language_model.embed_tokens.weight", 0, "model.language_model.", "language_model.model."},
    {"model.embed_tokens.weight", 0, "model.", "language_model.model."},
    {"embed_tokens.weight", 0, "", "language_model.model."},
    {"attention_pooler.query_tokens", 0, "", "duration_head."},
};

// llama.cpp's names of Gemma tensors inside `blk.N.`, and Hugging Face's inside `layers.N.`.
struct Rename {
    const char* from;
    const char* to;
};

constexpr Rename llama_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

std::string from_llama(const std::string& name) {
    if (name == "token_embd.weight") return "language_model.model.embed_tokens.weight";
    if (name == "rope_freqs.weight") return "language_model.model." + name;
    if (name == "output_norm.weight") return "language_model.model.norm.weight";
    if (!starts_with(name, "blk.")) return name;
    const size_t dot = name.find('.', 4), tail = name.rfind(".weight");
    if (dot == std::string::npos || tail == std::string::npos || tail <= dot) return name;
    const std::string part = name.substr(dot + 1, tail - dot - 1);
    if (part == "layer_output_scale") return "language_model.model.layers." + name.substr(4, dot - 4) + ".layer_scalar";
    for (auto& r : llama_names)
        if (part == r.from) return "language_model.model.layers." + name.substr(4, dot - 4) + "." + r.to + ".weight";
    return name;
}

// Some repositories call the connector of the video stream just that.
void rename_connector(TensorInfo& t) {
    constexpr const char* alias = "model.diffusion_model.embeddings_connector.";
    if (starts_with(t.name, alias))
        t.name = "model.diffusion_model.video_embeddings_connector." + t.name.substr(std::strlen(alias));
}

void normalise(const std::vector<ModelFile*>& set) {
    const auto each = [&](const auto& visit) {
        for (ModelFile* file : set)
            for (TensorInfo& t : file->tensors()) visit(t);
    };
    const auto holds = [&](const char* probe, size_t rank) {
        return std::any_of(set.begin(), set.end(), [&](ModelFile* file) {
            return std::any_of(file->tensors().begin(), file->tensors().end(), [&](const TensorInfo& t) {
                return t.stored_name == probe && (rank == 0 || t.shape.size() == rank);
            });
        });
    };
    if (holds("token_embd.weight", 0)) {
        each([](TensorInfo& t) { t.name = from_llama(t.stored_name); });
        return;
    }
    // The vocoder alone, in folders of one model per part: of its names only the outermost "vocoder." was taken away.
    if (holds("bwe_generator.conv_pre.weight", 0) || holds("conv_pre.weight", 0)) {
        each([](TensorInfo& t) { t.name = "vocoder." + t.stored_name; });
        return;
    }
    std::vector<const PrefixRule*> rules;
    for (auto& r : prefix_rules)
        if (holds(r.probe, r.rank)) rules.push_back(&r);
    each([&](TensorInfo& t) {
        const bool is_canonical = std::any_of(std::begin(canonical), std::end(canonical),
                                              [&](auto* c) { return starts_with(t.stored_name, c); });
        for (auto* r : rules)
            if (!is_canonical && starts_with(t.stored_name, r->strip)) {
                t.name = r->add + t.stored_name.substr(std::strlen(r->strip));
                break;
            }
        rename_connector(t);
    });
}

std::optional<Naming::Addition> addition(const ModelFile& file) {
    const Naming::Addition lora{lora_kind, "give it as a LoRA"};
    if (file.metadata("general.architecture") == "clip" || file.metadata("general.type") == "mmproj")
        return Naming::Addition{"the eyes of a text model (mmproj)", "leave it out"};
    bool initial_conv = false, upsampler = false, sound = false, diffusion = false;
    for (auto& t : file.tensors()) {
        for (const char* mark : {".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.", ".lora.up.",
                                 ".hada_w1", ".lokr_w1", ".oft_blocks", ".dora_scale"})
            if (t.stored_name.find(mark) != std::string::npos) return lora;
        for (const char* tail : {".lora_A", ".lora_B", ".diff", ".diff_b", ".w_norm"})
            if (ends_with(t.stored_name, tail)) return lora;
        sound = sound || starts_with(t.stored_name, "velocity_model.");
        diffusion = diffusion || ends_with(t.stored_name, "decoder.conv_in_x_t.weight");
        initial_conv = initial_conv || t.stored_name == "initial_conv.weight";
        upsampler = upsampler || starts_with(t.stored_name, "upsampler.");
    }
    if (sound) return Naming::Addition{"a model that makes sound alone", "leave it out"};
    if (diffusion)
        return Naming::Addition{diffusion_decoder_kind, "give the file of its convolutional VAE (video-vae-conv)"};
    if (initial_conv && upsampler) return Naming::Addition{upscaler_kind, "give it as the upscaler"};
    return std::nullopt;
}

}  // namespace

const Naming& ltx_naming() {
    static const Naming naming{normalise,
                               addition,
                               {
                                   {"model.diffusion_model.patchify_proj.weight", "transformer"},
                                   {"vae.decoder.conv_in.conv.weight", "video VAE"},
                                   {"audio_vae.decoder.conv_in.conv.weight", "audio VAE"},
                                   {"vocoder.vocoder.conv_pre.weight", "vocoder"},
                                   {"vocoder.conv_pre.weight", "vocoder"},
                                   {"language_model.model.embed_tokens.weight", "text encoder"},
                               }};
    return naming;
}

}  // namespace sdltx
