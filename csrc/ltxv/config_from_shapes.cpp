#include "config_from_shapes.h"

#include <algorithm>
#include <vector>

namespace sdltx {

namespace {

class Shapes {
 public:
    Shapes(const ModelFiles& files, std::string prefix) : files_(files), prefix_(std::move(prefix)) {}

    bool has(const std::string& name) const { return files_.find(prefix_ + name) != nullptr; }
    int64_t dim(const std::string& name, size_t axis) const {
        const TensorInfo* t = files_.find(prefix_ + name);
        if (!t || axis >= t->shape.size() || t->shape[axis] < 1)
            throw Error(ErrorCode::model_mismatch, "[load] the files have neither a 'config' nor a usable '" + prefix_ +
                                                       name + "' that would tell the sizes; use files that kept one");
        return t->shape[axis];
    }
    // How many of "<before>0<after>", "<before>1<after>", ... there are.
    int64_t count(const std::string& before, const std::string& after) const {
        int64_t n = 0;
        while (has(before + std::to_string(n) + after)) ++n;
        return n;
    }

 private:
    const ModelFiles& files_;
    std::string prefix_;
};

// Without gates, as in LTX-2.0, no shape tells how many heads there are.
constexpr int64_t heads_of_release = 32, connector_head_dim_of_2_0 = 128;

void describe_stream(Json& j, const Shapes& s, bool video) {
    const std::string key = video ? "" : "audio_", block = "transformer_blocks.0." + key;
    const int64_t width = s.dim(key + "patchify_proj.weight", 0);
    const std::string block_gate = block + "attn1.to_gate_logits.weight";
    const int64_t heads = s.has(block_gate) ? s.dim(block_gate, 0) : heads_of_release;
    j[key + "in_channels"] = s.dim(key + "patchify_proj.weight", 1);
    j[key + "out_channels"] = s.dim(key + "proj_out.weight", 0);
    j[key + "num_attention_heads"] = heads;
    j[key + "attention_head_dim"] = width / heads;
    const int64_t context = s.dim(block + "attn2.to_k.weight", 1);
    j[key + "cross_attention_dim"] = context;
    // The connectors may be in none of the files; then nobody asks how many heads they have.
    const std::string connector = key.empty() ? "video_embeddings_connector." : "audio_embeddings_connector.";
    const std::string gate = connector + "transformer_1d_blocks.0.attn1.to_gate_logits.weight",
                      caption = key + "caption_projection.linear_1.weight";
    const int64_t connector_width = s.has(caption) ? s.dim(caption, 1) : context;
    const int64_t connector_heads = s.has(gate)      ? s.dim(gate, 0)
                                    : s.has(caption) ? std::max<int64_t>(1, connector_width / connector_head_dim_of_2_0)
                                                     : heads;
    j[key + "connector_num_attention_heads"] = connector_heads;
    j[key + "connector_attention_head_dim"] = connector_width / connector_heads;
    j[key + "connector_num_layers"] =
        std::max<int64_t>(1, s.count(connector + "transformer_1d_blocks.", ".attn1.to_q.weight"));
}

Json transformer(const ModelFiles& files) {
    const Shapes s(files, "model.diffusion_model."), projection(files, "text_embedding_projection."),
        text(files, "language_model.model.");
    Json j = {
        {"_class_name", "AVTransformer3DModel"},
        {"activation_fn", "gelu-approximate"},
        {"rope_type", "split"},
        {"frequencies_precision", "float64"},
        {"qk_norm", "rms_norm"},
        {"use_middle_indices_grid", true},
        {"norm_elementwise_affine", false},
        {"causal_temporal_positioning", true},
        {"norm_eps", 1e-6},
        {"positional_embedding_theta", 10000.0},
        {"positional_embedding_max_pos", {20, 2048, 2048}},
        {"audio_positional_embedding_max_pos", {20}},
        {"connector_positional_embedding_max_pos", {4096}},
        {"timestep_scale_multiplier", 1000},
        {"av_ca_timestep_scale_multiplier", 1000.0},
    };
    // What tells 2.0, 2.3 and 2.5 apart (checkpoints.md section 6).
    const bool gated = s.has("transformer_blocks.0.attn1.to_gate_logits.weight");
    for (const char* key : {"apply_gated_attention", "connector_apply_gated_attention"}) j[key] = gated;
    j["cross_attention_adaln"] = s.has("transformer_blocks.0.prompt_scale_shift_table");
    const bool caption = s.has("caption_projection.linear_1.weight");
    if (!caption) {
        j["caption_proj_before_connector"] = true;
        for (const char* key :
             {"caption_projection_first_linear", "caption_proj_input_norm", "caption_projection_second_linear"})
            j[key] = false;
    }
    j["use_keyframes_abs_pos_embedding"] = s.has("keyframes_abs_pos_embedding");
    j["ff_bias"] = s.has("transformer_blocks.0.ff.net.0.proj.bias");
    j["audio_ff_bias"] = s.has("transformer_blocks.0.audio_ff.net.0.proj.bias");
    if (j["cross_attention_adaln"] == true && !s.has("prompt_adaln_single.linear.weight"))
        j["use_prompt_adaln_single"] = false;
    describe_stream(j, s, true);
    describe_stream(j, s, false);
    j["num_layers"] = s.count("transformer_blocks.", ".attn1.to_q.weight");
    constexpr int64_t width_of_12b = 3840, states_of_12b = 49;
    j["caption_channels"] = caption                           ? s.dim("caption_projection.linear_1.weight", 1)
                            : text.has("embed_tokens.weight") ? text.dim("embed_tokens.weight", 1)
                            : projection.has("video_aggregate_embed.weight")
                                ? projection.dim("video_aggregate_embed.weight", 1) / states_of_12b
                                : width_of_12b;
    return j;
}

// Blocks of one side of the video VAE, in the order of its weights. The kinds and factors of what changes the size
// follow from how many channels it makes of how many. `width`: of what the first block takes, afterwards of what the
// last gives.
std::vector<Json> vae_blocks(const Shapes& s, const std::string& list, bool up, int64_t& width) {
    std::vector<Json> blocks;
    for (int64_t i = 0;; ++i) {
        const std::string at = list + std::to_string(i) + ".";
        if (const int64_t layers = s.count(at + "res_blocks.", ".conv1.conv.weight")) {
            blocks.push_back({"res_x", {{"num_layers", layers}}});
            continue;
        }
        if (!s.has(at + "conv.conv.weight")) return blocks;
        const std::string after = list + std::to_string(i + 1) + ".res_blocks.0.conv1.conv.weight";
        const int64_t next = s.has(after) ? s.dim(after, 1) : s.dim("conv_out.conv.weight", 1);
        const int64_t made = s.dim(at + "conv.conv.weight", 0), cells = up ? made / next : next / made;
        const std::string kind = cells == 2 ? "compress_time" : cells == 4 ? "compress_space" : "compress_all";
        blocks.push_back({kind + (up ? "" : "_res"), {{"multiplier", up ? width / next : next / width}}});
        width = next;
    }
}

Json video_vae(const ModelFiles& files) {
    const Shapes s(files, "vae.decoder."), encoder(files, "vae.encoder.");
    int64_t width = s.dim("conv_in.conv.weight", 0);
    std::vector<Json> blocks = vae_blocks(s, "up_blocks.", true, width);
    // LTX-2.0 doubles all axes three times and adds what goes in; no later version has only such blocks.
    const bool of_2_0 = std::none_of(blocks.begin(), blocks.end(), [](const Json& b) {
        return b[0] == "compress_time" || b[0] == "compress_space" || b[1].value("multiplier", 2) != 2;
    });
    for (Json& b : blocks)
        if (of_2_0 && b[0] == "compress_all") b[1]["residual"] = true;
    int64_t patch = 1;
    while (3 * (patch + 1) * (patch + 1) <= s.dim("conv_out.conv.weight", 0)) ++patch;
    Json j = {{"_class_name", "CausalVideoAutoencoder"},
              {"norm_layer", "pixel_norm"},
              {"spatial_padding_mode", of_2_0 ? "reflect" : "zeros"},
              {"dims", 3},
              {"causal_decoder", false},
              {"timestep_conditioning", false},
              {"use_quant_conv", false},
              {"latent_channels", s.dim("conv_in.conv.weight", 1)},
              {"out_channels", 3},
              {"patch_size", patch},
              {"decoder_base_channels", width},
              {"decoder_blocks", std::vector<Json>(blocks.rbegin(), blocks.rend())}};
    if (encoder.has("conv_in.conv.weight")) {
        int64_t base = encoder.dim("conv_in.conv.weight", 0);
        j["latent_log_var"] = "uniform";
        j["encoder_base_channels"] = base;
        j["encoder_blocks"] = vae_blocks(encoder, "down_blocks.", false, base);
    }
    return j;
}

Json audio_vae(const ModelFiles& files) {
    const Shapes s(files, "audio_vae.decoder."), statistics(files, "audio_vae.per_channel_statistics.");
    const int64_t levels = s.count("up.", ".block.0.conv1.conv.weight"), channels = s.dim("conv_in.conv.weight", 1);
    std::vector<int64_t> widths;
    for (int64_t level = 0; level < levels; ++level)
        widths.push_back(s.dim("up." + std::to_string(level) + ".block.0.conv1.conv.weight", 0));
    if (widths.empty()) s.dim("up.0.block.0.conv1.conv.weight", 0);  // says what is missing
    std::vector<int64_t> multipliers;
    for (int64_t width : widths) multipliers.push_back(width / widths.front());
    const int64_t bins = statistics.dim("mean-of-means", 0) / channels;
    return {{"model",
             {{"params",
               {{"ddconfig",
                 {{"norm_type", "pixel"},
                  {"causality_axis", "height"},
                  {"mid_block_add_attention", false},
                  {"attn_resolutions", Json::array()},
                  {"z_channels", channels},
                  {"mel_bins", bins << (levels - 1)},
                  {"out_ch", s.dim("conv_out.conv.weight", 0)},
                  {"ch", widths.front()},
                  {"ch_mult", multipliers},
                  {"num_res_blocks", s.count("up.0.block.", ".conv1.conv.weight") - 1}}}}}}}};
}

// How many samples a transposed convolution with so many taps makes of one, in all releases.
int64_t rate_of(int64_t taps) { return taps == 16 ? 6 : taps == 15 ? 5 : taps == 8 ? 2 : taps / 2; }

// The dilations are always these.
Json generator(const ModelFiles& files, const std::string& prefix) {
    const Shapes s(files, prefix);
    std::vector<int64_t> rates, kernels, block_kernels;
    for (int64_t i = 0; s.has("ups." + std::to_string(i) + ".weight"); ++i) {
        kernels.push_back(s.dim("ups." + std::to_string(i) + ".weight", 2));
        rates.push_back(rate_of(kernels.back()));
    }
    const int64_t blocks = s.count("resblocks.", ".convs1.0.weight");
    const int64_t each = kernels.empty() ? 0 : blocks / static_cast<int64_t>(kernels.size());
    for (int64_t i = 0; i < each; ++i)
        block_kernels.push_back(s.dim("resblocks." + std::to_string(i) + ".convs1.0.weight", 2));
    return {{"resblock", "AMP1"},
            {"activation", "snakebeta"},
            {"stereo", true},
            {"use_tanh_at_final", false},
            {"use_bias_at_final", false},
            {"upsample_initial_channel", s.dim("conv_pre.weight", 0)},
            {"upsample_rates", rates},
            {"upsample_kernel_sizes", kernels},
            {"resblock_kernel_sizes", block_kernels},
            {"resblock_dilation_sizes",
             std::vector<std::vector<int64_t>>(block_kernels.size(), std::vector<int64_t>{1, 3, 5})}};
}

Json vocoder(const ModelFiles& files) {
    const Shapes s(files, "vocoder.");
    if (!s.has("bwe_generator.conv_pre.weight")) {
        Json j = generator(files, "vocoder.");
        j["resblock"] = "1";
        return j;
    }
    Json bwe = generator(files, "vocoder.bwe_generator.");
    int64_t up = 1;
    for (const Json& rate : bwe["upsample_rates"]) up *= rate.get<int64_t>();
    const int64_t window = s.dim("mel_stft.stft_fn.forward_basis", 2);
    bwe.update({{"apply_final_activation", false},
                {"n_fft", window},
                {"win_size", window},
                {"hop_length", up / 3},
                {"num_mels", s.dim("mel_stft.mel_basis", 0)},
                {"input_sampling_rate", 16000},
                {"output_sampling_rate", 48000}});
    return {{"vocoder", generator(files, "vocoder.vocoder.")}, {"bwe", bwe}};
}

}  // namespace

Json config_from_shapes(const ModelFiles& files, const std::string& section) {
    return section == "transformer" ? transformer(files)
           : section == "vae"       ? video_vae(files)
           : section == "audio_vae" ? audio_vae(files)
                                    : vocoder(files);
}

std::string config_text_from_shapes(const ModelFiles& files, const std::string& section) {
    return config_from_shapes(files, section).dump();
}

}  // namespace sdltx
