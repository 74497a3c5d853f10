// The checkpoint's own configuration. Nothing here has a default: a missing key or an unknown value is an error.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ggml/model_file.h"

namespace sdltx {

struct StreamConfig {
    int64_t heads, head_dim;            // self and text attention
    int64_t in_channels, out_channels;  // of a token
    int64_t context_dim;                // of the text context
    std::vector<double> max_pos;        // one per position axis
    int64_t connector_heads, connector_head_dim, connector_layers;
    bool ff_bias;  // of the feed-forward layers of blocks

    int64_t dim() const { return heads * head_dim; }
    int64_t connector_dim() const { return connector_heads * connector_head_dim; }
};

struct TransformerConfig {
    StreamConfig video, audio;
    int64_t num_layers;
    double norm_eps, rope_theta, timestep_scale, av_gate_timestep_scale;
    double connector_max_pos;
    int64_t caption_channels;  // width of the text encoder
    // What LTX-2.0 lacks: gates of attention heads, and modulation of the text attention.
    bool gated_attention, cross_attention_adaln, connector_gated_attention;
    // Whether the modulation of the text attention follows the noise level; else it is that of a table alone.
    bool prompt_adaln;
    // Whether tokens of single pictures are marked, as in LTX-2.5; the tensor may be missing all the same.
    bool keyframes_embedding;
    // What only LTX-2.0 has: states of the text encoder normalised over a prompt, one projection for both streams, and
    // another one behind each connector (text.md section 4).
    bool caption_projection;
};

struct VaeBlock {
    std::string type;    // "res_x", "compress_time", "compress_space", "compress_all" (encoder: with "_res")
    int64_t num_layers;  // of a res_x
    int64_t multiplier;  // of a compress block
    bool residual;       // of a compress block: what goes in is added to what comes out
};

struct VideoVaeConfig {
    int64_t latent_channels, out_channels, patch_size, decoder_base_channels;
    bool reflect;                          // how the decoder pads pictures: mirrored, or with zeros
    std::vector<VaeBlock> decoder_blocks;  // as listed; the decoder walks them from the end
    // Of the encoder, if its weights are among the files.
    int64_t encoder_base_channels = 0;
    std::vector<VaeBlock> encoder_blocks;
};

struct AudioLatentConfig {
    int64_t channels, mel_bins;  // of one latent frame
};

struct AudioVaeConfig {
    int64_t latent_channels, mel_bins, latent_bins, out_channels;  // latent_bins: mel bins of a latent frame
    int64_t ch, num_res_blocks;
    std::vector<int64_t> ch_mult;
};

// One generator (vocoder or bandwidth extension): in the style of BigVGAN, or of HiFi-GAN (LTX-2.0).
struct GeneratorConfig {
    bool hifi_gan;
    int64_t upsample_initial_channel;
    std::vector<int> upsample_rates, upsample_kernel_sizes, resblock_kernel_sizes;
    std::vector<std::vector<int>> resblock_dilation_sizes;
};

struct VocoderConfig {
    GeneratorConfig vocoder;
    std::optional<GeneratorConfig> bwe;             // none in LTX-2.0
    int64_t n_fft, hop_length, num_mels;            // of the spectrogram between them
    int input_sampling_rate, output_sampling_rate;  // of the vocoder's samples, and of what comes out in the end
};

// Of the parts that are among the files.
struct ModelConfig {
    std::string version;  // "2.3.0"
    std::optional<TransformerConfig> transformer;
    std::optional<AudioLatentConfig> audio;  // with the transformer
    std::optional<VideoVaeConfig> vae;       // when there is a decoder
    std::optional<AudioVaeConfig> audio_vae;
    std::optional<VocoderConfig> vocoder;
    // Reads the `config` and `model_version` metadata. Throws Error(model_mismatch), also when no part is found; with
    // `problems` it goes on instead, without the part.
    static ModelConfig load(const ModelFiles& files, Problems* problems = nullptr);
};

// The configuration of everything that is among the files, as one `config` metadata has it: as it is stored if one file
// says all, else put together and filled up from shapes.
std::string config_text(const ModelFiles& files);

}  // namespace sdltx
