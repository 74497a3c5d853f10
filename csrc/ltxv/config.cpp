#include "config.h"

#include <algorithm>
#include <array>

#include "base/json.h"
#include "base/log.h"
#include "config_from_shapes.h"
#include "version.h"
#include "video_vae_blocks.h"

namespace sdltx {

namespace {

StreamConfig stream(const Json& j, bool video, const std::string& where) {
    const std::string p = video ? "" : "audio_";
    auto count = [&](const std::string& key) { return require_count(j, key.c_str(), 1 << 16, where); };
    StreamConfig s{};
    s.heads = count(p + "num_attention_heads");
    s.head_dim = count(p + "attention_head_dim");
    s.out_channels = count(p + "out_channels");
    // The released configuration has no audio_in_channels: sound has as many going in as out.
    s.in_channels = video || j.contains("audio_in_channels") ? count(p + "in_channels") : s.out_channels;
    s.context_dim = count(p + "cross_attention_dim");
    s.max_pos = require<std::vector<double>>(j, (p + "positional_embedding_max_pos").c_str(), where);
    // There is one number for both; the audio connector has its own only if it says so.
    const auto of_connector = [&](const std::string& key) {
        return count(!video && j.contains("audio_" + key) ? "audio_" + key : key);
    };
    s.connector_heads = of_connector("connector_num_attention_heads");
    s.connector_head_dim = of_connector("connector_attention_head_dim");
    s.connector_layers = of_connector("connector_num_layers");
    if (constexpr int64_t most_layers = 1 << 10; s.connector_layers > most_layers)
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] 'connector_num_layers' is not between 1 and " + std::to_string(most_layers));
    const size_t axes = video ? 3 : 1;
    if (s.max_pos.size() != axes || s.head_dim % 2 || s.connector_head_dim % 2 || s.in_channels != s.out_channels)
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] the " + (video ? "video" : "audio") + " widths contradict each other");
    for (double m : s.max_pos)
        if (!(m > 0))
            throw Error(ErrorCode::model_mismatch, "[" + where + "] positional_embedding_max_pos must be positive");
    return s;
}

TransformerConfig read_transformer(const Json& j) {
    const std::string where = "transformer configuration";
    require_value<std::string>(j, "_class_name", "AVTransformer3DModel", where);
    require_value<std::string>(j, "activation_fn", "gelu-approximate", where);
    require_value<std::string>(j, "rope_type", "split", where);
    require_value<std::string>(j, "frequencies_precision", "float64", where);
    require_value<std::string>(j, "qk_norm", "rms_norm", where);
    require_value(j, "use_middle_indices_grid", true, where);
    require_value(j, "norm_elementwise_affine", false, where);
    require_value(j, "causal_temporal_positioning", true, where);
    // Four keys that come together, or not at all.
    constexpr std::pair<const char*, bool> of_extractor_v2[] = {{"caption_proj_before_connector", true},
                                                                {"caption_projection_first_linear", false},
                                                                {"caption_proj_input_norm", false},
                                                                {"caption_projection_second_linear", false}};
    const auto is_v2 = [&](auto& kv) { return j.contains(kv.first) && j.at(kv.first) == kv.second; };
    const bool v2 = std::all_of(std::begin(of_extractor_v2), std::end(of_extractor_v2), is_v2);
    if (!v2)
        for (auto& [key, value] : of_extractor_v2)
            if (j.contains(key))
                throw Error(ErrorCode::model_mismatch, "[" + where + "] '" + key + "' is " + spell(j.at(key)) +
                                                           " beside other keys that do not go with it; this way of "
                                                           "reading the text encoder is not implemented");
    TransformerConfig c{};
    c.video = stream(j, true, where);
    c.audio = stream(j, false, where);
    c.num_layers = require_count(j, "num_layers", 1 << 10, where);
    c.norm_eps = require<double>(j, "norm_eps", where);
    c.rope_theta = require<double>(j, "positional_embedding_theta", where);
    c.timestep_scale = require<double>(j, "timestep_scale_multiplier", where);
    c.av_gate_timestep_scale = require<double>(j, "av_ca_timestep_scale_multiplier", where);
    const auto connector_max_pos = require<std::vector<double>>(j, "connector_positional_embedding_max_pos", where);
    c.connector_max_pos = connector_max_pos.empty() ? 0 : connector_max_pos.front();
    c.caption_channels = require_count(j, "caption_channels", 1 << 16, where);
    c.gated_attention = value_or(j, "apply_gated_attention", false, where);
    c.cross_attention_adaln = value_or(j, "cross_attention_adaln", false, where);
    c.connector_gated_attention = value_or(j, "connector_apply_gated_attention", false, where);
    c.prompt_adaln = c.cross_attention_adaln && value_or(j, "use_prompt_adaln_single", true, where);
    c.keyframes_embedding = value_or(j, "use_keyframes_abs_pos_embedding", false, where);
    require_value_or(j, "connector_ff_bias", true, where);
    c.video.ff_bias = value_or(j, "ff_bias", true, where);
    c.audio.ff_bias = value_or(j, "audio_ff_bias", true, where);
    c.caption_projection = !v2;
    for (const StreamConfig* s : {&c.video, &c.audio})
        if (s->connector_dim() != (v2 ? s->context_dim : c.caption_channels) || s->context_dim != s->dim())
            throw Error(ErrorCode::model_mismatch, "[" + where +
                                                       "] the widths of connectors, text encoder and context "
                                                       "contradict each other");
    if (!(c.norm_eps > 0) || !(c.rope_theta > 1) || !(c.connector_max_pos > 0))
        throw Error(
            ErrorCode::model_mismatch,
            "[" + where +
                "] norm_eps, positional_embedding_theta or connector_positional_embedding_max_pos is not positive");
    return c;
}

const std::string where_video_vae = "video VAE configuration";

// suffix: of the compress blocks of one side.
std::vector<VaeBlock> read_vae_blocks(const Json& j, const char* key, const std::string& suffix) {
    const std::string& where = where_video_vae;
    std::vector<VaeBlock> blocks;
    const auto entries = require<std::vector<Json>>(j, key, where);
    if (constexpr size_t most_blocks = 64; entries.size() > most_blocks)
        throw Error(ErrorCode::model_mismatch, "[" + where + "] " + key + " holds " + std::to_string(entries.size()) +
                                                   " blocks; at most " + std::to_string(most_blocks) + " are possible");
    for (auto& entry : entries) {
        if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_object())
            throw Error(ErrorCode::model_mismatch,
                        "[" + where + "] " + key + " holds " + spell(entry) + ", not [type, options]");
        VaeBlock b{entry[0].get<std::string>(), 0, 1, false};
        if (b.type == "res_x") {
            b.num_layers = require_count(entry[1], "num_layers", 256, where);
            if (value_or(entry[1], "inject_noise", false, where))
                throw Error(ErrorCode::model_mismatch, "[" + where + "] inject_noise is not implemented");
        } else if (b.type == "compress_time" + suffix || b.type == "compress_space" + suffix ||
                   b.type == "compress_all" + suffix) {
            b.multiplier = value_or<int64_t>(entry[1], "multiplier", 1, where);
            if (b.multiplier < 1 || b.multiplier > 8)
                throw Error(ErrorCode::model_mismatch, "[" + where + "] a multiplier is not between 1 and 8");
            b.residual = value_or(entry[1], "residual", false, where);
        } else {
            throw Error(ErrorCode::model_mismatch,
                        "[" + where + "] " + key + " holds '" + b.type + "', which is not implemented");
        }
        blocks.push_back(b);
    }
    return blocks;
}

// Frames, rows and columns that a latent cell stands for: what is decoded is laid out by these numbers.
void check_compression(const std::vector<VaeBlock>& blocks, const char* key, int64_t patch_size) {
    std::array<int64_t, 3> cell = {1, patch_size, patch_size};
    for (const VaeBlock& b : blocks) {
        if (b.type == "res_x") continue;
        const std::array<int, 3> stride = stride_of(b.type);
        for (size_t i = 0; i < 3; ++i) cell[i] *= std::min<int64_t>(stride[i], 1 << 8);
        if (cell[0] > 8 || cell[1] > 32 || cell[2] > 32) break;
    }
    if (cell != std::array<int64_t, 3>{8, 32, 32})
        throw Error(ErrorCode::model_mismatch, "[" + where_video_vae + "] '" + key + "' makes cells of " +
                                                   std::to_string(cell[0]) + " frames and " + std::to_string(cell[1]) +
                                                   "x" + std::to_string(cell[2]) +
                                                   " pixels; only 8 frames and 32x32 pixels are implemented");
}

VideoVaeConfig read_video_vae(const Json& j, bool with_encoder) {
    const std::string& where = where_video_vae;
    if (value_or<std::string>(j, "_class_name", "", where) == "CausalDiffusionVAE")
        throw Error(
            ErrorCode::model_mismatch,
            "[" + where +
                "] this is the diffusion decoder of LTX-2.5, which this version does not run; its convolutional "
                "VAE, or that of LTX-2.3, is what it decodes with");
    require_value<std::string>(j, "_class_name", "CausalVideoAutoencoder", where);
    require_value<std::string>(j, "norm_layer", "pixel_norm", where);
    require_value(j, "dims", 3, where);
    require_value(j, "causal_decoder", false, where);
    require_value(j, "timestep_conditioning", false, where);
    require_value(j, "use_quant_conv", false, where);
    VideoVaeConfig c{};
    // A key that came with 2.3; before, the decoder mirrored pictures at their edges.
    const auto padding = value_or<std::string>(j, "spatial_padding_mode", "reflect", where);
    c.reflect = padding == "reflect";
    if (!c.reflect) require_value<std::string>(j, "spatial_padding_mode", "zeros", where);
    c.latent_channels = require_count(j, "latent_channels", 1 << 12, where);
    c.out_channels = require_count(j, "out_channels", 16, where);
    c.patch_size = require_count(j, "patch_size", 16, where);
    c.decoder_base_channels = require_count(j, "decoder_base_channels", 1 << 12, where);
    c.decoder_blocks = read_vae_blocks(j, "decoder_blocks", "");
    check_compression(c.decoder_blocks, "decoder_blocks", c.patch_size);
    if (!with_encoder) return c;
    require_value<std::string>(j, "latent_log_var", "uniform", where);
    c.encoder_base_channels = require_count(j, "encoder_base_channels", 1 << 12, where);
    c.encoder_blocks = read_vae_blocks(j, "encoder_blocks", "_res");
    check_compression(c.encoder_blocks, "encoder_blocks", c.patch_size);
    return c;
}

Json audio_ddconfig(const Json& section) {
    const std::string where = "audio VAE configuration";
    const Json model = require<Json>(section, "model", where);
    return require<Json>(require<Json>(model, "params", where), "ddconfig", where);
}

AudioLatentConfig audio_latent(const Json& section, int64_t token_channels) {
    const std::string where = "audio VAE configuration";
    const Json ddconfig = audio_ddconfig(section);
    AudioLatentConfig c{};
    c.channels = require_count(ddconfig, "z_channels", 1 << 10, where);
    if (token_channels % c.channels)
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] z_channels does not divide the transformer's audio channels");
    c.mel_bins = token_channels / c.channels;
    return c;
}

AudioVaeConfig read_audio_vae(const Json& section) {
    const std::string where = "audio VAE configuration";
    const Json j = audio_ddconfig(section);
    require_value<std::string>(j, "norm_type", "pixel", where);
    require_value<std::string>(j, "causality_axis", "height", where);
    require_value(j, "mid_block_add_attention", false, where);
    if (!require<Json>(j, "attn_resolutions", where).empty())
        throw Error(ErrorCode::model_mismatch, "[" + where + "] attn_resolutions is not implemented");
    AudioVaeConfig c{};
    c.latent_channels = require_count(j, "z_channels", 1 << 10, where);
    c.mel_bins = require_count(j, "mel_bins", 1 << 10, where);
    c.out_channels = require_count(j, "out_ch", 16, where);
    c.ch = require_count(j, "ch", 1 << 12, where);
    c.num_res_blocks = require_count(j, "num_res_blocks", 64, where);
    c.ch_mult = require<std::vector<int64_t>>(j, "ch_mult", where);
    if (c.ch_mult.empty() || c.ch_mult.size() > 8)
        throw Error(ErrorCode::model_mismatch, "[" + where + "] ch_mult needs 1 to 8 values");
    for (int64_t m : c.ch_mult)
        if (m < 1 || m > 64)
            throw Error(ErrorCode::model_mismatch, "[" + where + "] a value of ch_mult is not between 1 and 64");
    c.latent_bins = c.mel_bins >> (c.ch_mult.size() - 1);
    return c;
}

GeneratorConfig read_generator(const Json& j, bool bwe) {
    const std::string where = bwe ? "bandwidth extension configuration" : "vocoder configuration";
    GeneratorConfig c{};
    c.hifi_gan = !bwe && value_or<std::string>(j, "resblock", "1", where) == "1";
    require_value(j, "stereo", true, where);
    if (!c.hifi_gan) {
        require_value<std::string>(j, "resblock", "AMP1", where);
        require_value<std::string>(j, "activation", "snakebeta", where);
        require_value(j, "use_tanh_at_final", false, where);
        require_value(j, "use_bias_at_final", false, where);
    }
    if (bwe) require_value(j, "apply_final_activation", false, where);
    c.upsample_initial_channel = require_count(j, "upsample_initial_channel", 1 << 14, where);
    c.upsample_rates = require<std::vector<int>>(j, "upsample_rates", where);
    c.upsample_kernel_sizes = require<std::vector<int>>(j, "upsample_kernel_sizes", where);
    c.resblock_kernel_sizes = require<std::vector<int>>(j, "resblock_kernel_sizes", where);
    c.resblock_dilation_sizes = require<std::vector<std::vector<int>>>(j, "resblock_dilation_sizes", where);
    const size_t stages = c.upsample_rates.size(), blocks = c.resblock_kernel_sizes.size();
    bool good = stages >= 1 && stages <= 16 && stages == c.upsample_kernel_sizes.size() && blocks >= 1 &&
                blocks <= 16 && blocks == c.resblock_dilation_sizes.size() && c.upsample_initial_channel >> stages >= 1;
    // Samples that one time step becomes.
    constexpr int64_t most_samples = 1 << 16;
    int64_t samples = 1;
    for (size_t i = 0; good && i < stages; ++i) {
        const int rate = c.upsample_rates[i], k = c.upsample_kernel_sizes[i];
        samples *= rate;
        good = rate >= 1 && rate <= 64 && k >= rate && k <= 256 && (k - rate) % 2 == 0 && samples <= most_samples;
    }
    for (int k : c.resblock_kernel_sizes) good = good && k >= 1 && k <= 63 && k % 2 == 1;
    for (auto& dilations : c.resblock_dilation_sizes) {
        good = good && !dilations.empty() && dilations.size() <= 16;
        for (int d : dilations) good = good && d >= 1 && d <= 64;
    }
    if (!good)
        throw Error(ErrorCode::model_mismatch,
                    "[" + where + "] rates, kernel sizes and dilations contradict each other");
    return c;
}

VocoderConfig read_vocoder(const Json& j) {
    const std::string where = "vocoder configuration";
    VocoderConfig c{};
    const auto rate = [&](const Json& of, const char* key) {
        return static_cast<int>(require_count(of, key, 1 << 20, where));
    };
    if (!j.contains("bwe")) {
        c.vocoder = read_generator(j, false);
        c.output_sampling_rate = j.contains("output_sampling_rate") ? rate(j, "output_sampling_rate") : 24000;
        c.input_sampling_rate = c.output_sampling_rate;
        return c;
    }
    const Json bwe = require<Json>(j, "bwe", where);
    c.vocoder = read_generator(require<Json>(j, "vocoder", where), false);
    c.bwe = read_generator(bwe, true);
    c.n_fft = require_count(bwe, "n_fft", 1 << 14, where);
    c.hop_length = require_count(bwe, "hop_length", 1 << 12, where);
    c.num_mels = require_count(bwe, "num_mels", 1 << 10, where);
    c.input_sampling_rate = rate(bwe, "input_sampling_rate");
    c.output_sampling_rate = rate(bwe, "output_sampling_rate");
    require_value(bwe, "win_size", c.n_fft, where);
    int64_t up = 1;
    for (int r : c.bwe->upsample_rates) up *= r;
    if (c.n_fft % 2 || c.hop_length > c.n_fft || up != 3 * c.hop_length ||
        c.output_sampling_rate != 3 * c.input_sampling_rate)
        throw Error(ErrorCode::model_mismatch, "[" + where + "] the bandwidth extension must triple the sampling rate");
    return c;
}

struct Section {
    const char* key;     // in the configuration
    const char* prefix;  // of the tensors that it describes
    const char* name;
    const char* own;  // a key that only the section itself has
};
constexpr Section transformer_section{"transformer", "model.diffusion_model.", "transformer", "num_attention_heads"};
constexpr Section vae_section{"vae", "vae.", "video VAE", "decoder_blocks"};
constexpr Section audio_vae_section{"audio_vae", "audio_vae.", "audio VAE", "model"};
constexpr Section vocoder_section{"vocoder", "vocoder.", "vocoder", "bwe"};

constexpr const Section* all_sections[] = {&transformer_section, &vae_section, &audio_vae_section, &vocoder_section};
constexpr const char* config_keys[] = {"config", "ltx.config", "general.config"};

// From the file of the part, else from another, under any of the keys that writers use, whole or the section alone.
std::optional<Json> find_section(const ModelFiles& files, const Section& section) {
    for (const char* key : config_keys)
        for (const std::string& text : files.all_metadata(key, section.prefix)) {
            const Json j = parse_json(text, std::string(key) + " metadata of the " + section.name);
            if (j.contains(section.own)) return j;
            // A duration head tells the widths of the transformer that it belongs to, and no more.
            if (j.contains(section.key) && !(j.contains("duration_head") && section.key == transformer_section.key))
                return j.at(section.key);
        }
    return std::nullopt;
}

Json section_of(const ModelFiles& files, const Section& section) {
    if (auto found = find_section(files, section)) return *found;
    log(20, std::string("[load] no file has a configuration of the ") + section.name +
                "; it is taken from the shapes of the weights and, where they do not tell, from LTX-2.3");
    return config_from_shapes(files, section.key);
}

// How many channels and mel bins a token of sound has is told by the audio VAE, which may not be among the files.
AudioLatentConfig audio_latent_of(const ModelFiles& files, int64_t token_channels) {
    if (auto found = find_section(files, audio_vae_section)) return audio_latent(*found, token_channels);
    if (files.has_prefix("audio_vae.decoder."))
        return audio_latent(config_from_shapes(files, "audio_vae"), token_channels);
    constexpr int64_t channels_of_release = 8;
    if (token_channels % channels_of_release)
        throw Error(ErrorCode::model_mismatch, "[load] the files do not tell how " + std::to_string(token_channels) +
                                                   " channels of sound are laid out; add the audio VAE");
    return {channels_of_release, token_channels / channels_of_release};
}

// Weights that the configuration does not know of would change what is computed by being left out.
void check_against_tensors(const ModelFiles& files, const TransformerConfig& c) {
    struct Optional {
        const char* key;
        bool expected;
        const char* tensor;
    };
    const Optional all[] = {
        {"apply_gated_attention", c.gated_attention, "transformer_blocks.0.attn1.to_gate_logits.weight"},
        {"cross_attention_adaln", c.cross_attention_adaln, "transformer_blocks.0.prompt_scale_shift_table"},
        {"caption_proj_before_connector", c.caption_projection, "caption_projection.linear_1.weight"},
    };
    for (const Optional& o : all)
        if (!o.expected && files.find(std::string("model.diffusion_model.") + o.tensor))
            throw Error(ErrorCode::model_mismatch, std::string("[transformer configuration] '") + o.key +
                                                       "' contradicts the weights, which hold " + o.tensor +
                                                       "; use the configuration that belongs to them");
}

// Biases are where their weights are, whatever the configuration says.
void follow_tensors(const ModelFiles& files, TransformerConfig& c) {
    for (StreamConfig* s : {&c.video, &c.audio}) {
        const std::string ff =
            std::string("transformer_blocks.0.") + (s == &c.video ? "" : "audio_") + "ff.net.0.proj.";
        const std::string prefix = "model.diffusion_model." + ff;
        const bool there = files.find(prefix + "bias");
        if (s->ff_bias != there && files.find(prefix + "weight"))
            log(30, "[transformer configuration] it tells of feed-forward layers with" +
                        std::string(there ? "out" : "") + " bias, and the weights are of layers with" +
                        (there ? "" : "out") + " one; the weights are followed");
        s->ff_bias = there;
    }
}

}  // namespace

ModelConfig ModelConfig::load(const ModelFiles& files, Problems* problems) {
    constexpr const char* dit = "model.diffusion_model.patchify_proj.";
    const TensorInfo* probe = files.find(std::string(dit) + "weight");
    const bool has_transformer = files.has_prefix(dit), has_decoder = files.has_prefix("vae.decoder."),
               has_audio_decoder = files.has_prefix("audio_vae.decoder.");
    ModelConfig c;
    // Other files may be of another version. Without a transformer there is none to belong to.
    c.version = (probe ? probe->file->metadata("model_version") : files.metadata("model_version")).value_or("2.3");
    if (has_transformer)
        attempt(problems, [&] {
            TransformerConfig transformer = read_transformer(section_of(files, transformer_section));
            check_against_tensors(files, transformer);
            follow_tensors(files, transformer);
            c.audio = audio_latent_of(files, transformer.audio.in_channels);
            // Metadata may be stale; tensors are not.
            if (transformer.caption_projection != (c.version.rfind("2.0", 0) == 0))
                c.version = transformer.caption_projection ? "2.0" : "2.3";
            if (transformer.keyframes_embedding && !is_since(c.version, "2.4")) c.version = "2.5";
            c.transformer = std::move(transformer);
        });
    if (has_decoder)
        attempt(problems,
                [&] { c.vae = read_video_vae(section_of(files, vae_section), files.has_prefix("vae.encoder.")); });
    if (has_audio_decoder)
        attempt(problems, [&] { c.audio_vae = read_audio_vae(section_of(files, audio_vae_section)); });
    if (files.has_prefix("vocoder."))
        attempt(problems, [&] { c.vocoder = read_vocoder(section_of(files, vocoder_section)); });
    const bool gemma = files.has_prefix("language_model.");
    attempt(problems, [&] {
        if (!has_transformer && !has_decoder && !has_audio_decoder && !(problems && gemma))
            throw Error(ErrorCode::model_mismatch,
                        std::string("[load] ") +
                            (gemma ? "the files hold a text encoder but no" : "the files hold no") +
                            " part of LTX-2 (no transformer, no video VAE); add the checkpoint or GGUF that has it");
        if (c.transformer && c.vae && c.vae->latent_channels != c.transformer->video.in_channels)
            throw Error(ErrorCode::model_mismatch,
                        "[load] the video VAE has " + std::to_string(c.vae->latent_channels) +
                            " latent channels, the transformer takes " +
                            std::to_string(c.transformer->video.in_channels) + "; the files are of different models");
    });
    return c;
}

std::string config_text(const ModelFiles& files) {
    Json whole = Json::object();
    std::string stored;
    int sources = 0;
    for (const char* key : config_keys)
        for (const std::string& text : files.all_metadata(key)) {
            const Json j = parse_json(text, std::string(key) + " metadata");
            const auto section = std::find_if(std::begin(all_sections), std::end(all_sections),
                                              [&](const Section* s) { return j.contains(s->own); });
            const Json added = section != std::end(all_sections) ? Json{{(*section)->key, j}} : j;
            const size_t before = whole.size();
            // A duration head tells the widths of the transformer that it belongs to, and no more.
            for (auto& [name, value] : added.items())
                if (!whole.contains(name) && !(name == transformer_section.key && j.contains("duration_head")))
                    whole[name] = value;
            if (whole.size() > before) {
                stored = section == std::end(all_sections) ? text : "";
                ++sources;
            }
        }
    for (const Section* section : all_sections)
        if (!whole.contains(section->key) && files.has_prefix(section->prefix)) {
            whole[section->key] = config_from_shapes(files, section->key);
            ++sources;
        }
    return sources == 1 && !stored.empty() ? stored : whole.dump();
}

}  // namespace sdltx
