#include "text_projection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "rope.h"

namespace sdltx {

namespace {

// Tokens that are projected at a time: all states of one take 753 KB at the release's size.
constexpr int64_t tokens_per_chunk = 64;

std::string name_of_gemma(int64_t width) {
    constexpr std::pair<int64_t, const char*> sizes[] = {
        {640, "270M"}, {1152, "1B"}, {2560, "4B"}, {3840, "12B"}, {5376, "27B"}};
    for (auto& [of, name] : sizes)
        if (of == width) return std::string(" (Gemma 3 ") + name + ")";
    return "";
}

}  // namespace

TextProjection::TextProjection(const ModelFiles& files, Workspace& workspace, const TransformerConfig& config,
                               int64_t gemma_hidden, int64_t gemma_states)
    : workspace_(workspace),
      config_(config),
      hidden_(gemma_hidden),
      states_(gemma_states),
      projection_(files, workspace.backend(), "text projection", "text_embedding_projection."),
      connectors_(files, workspace.backend(), "text connectors", "model.diffusion_model.") {
    if (gemma_hidden != config.caption_channels)
        throw Error(ErrorCode::model_mismatch, "[load] the transformer was trained with a text encoder of width " +
                                                   std::to_string(config.caption_channels) +
                                                   name_of_gemma(config.caption_channels) + ", the one given has " +
                                                   std::to_string(gemma_hidden) + name_of_gemma(gemma_hidden) +
                                                   "; use the text encoder that belongs to it");
    const std::string of_2_0 = "text_embedding_projection.aggregate_embed.weight",
                      later = "text_embedding_projection.video_aggregate_embed.weight";
    if (const bool old = config.caption_projection;
        files.find(old ? later : of_2_0) && !files.find(old ? of_2_0 : later))
        throw Error(ErrorCode::model_mismatch,
                    std::string("[load] the text projection is of ") +
                        (old ? "LTX-2.3 and the transformer of LTX-2.0" : "LTX-2.0 and the transformer of LTX-2.3") +
                        "; use parts of the same model");
    video_ = declare_stream("video", config.video, config.video.connector_layers);
    audio_ = declare_stream("audio", config.audio, config.audio.connector_layers);
}

TextProjection::Stream TextProjection::declare_stream(const std::string& kind, const StreamConfig& s, int64_t layers) {
    Stream out;
    out.kind = kind;
    out.width = s.connector_dim();
    out.heads = s.connector_heads;
    if (!config_.caption_projection)
        out.aggregate_embed = declare_linear(projection_, kind + "_aggregate_embed", hidden_ * states_, out.width);
    else if (kind == "video")
        out.aggregate_embed = declare_linear(projection_, "aggregate_embed", hidden_ * states_, out.width, false);
    const std::string path = kind + "_embeddings_connector.";
    out.registers = connectors_.host(path + "learnable_registers", {num_registers, out.width});
    for (int64_t i = 0; i < layers; ++i) {
        const std::string block = path + "transformer_1d_blocks." + std::to_string(i) + ".";
        out.blocks.push_back(
            {declare_attention(connectors_, block + "attn1", out.width, out.width, s.connector_heads,
                               s.connector_head_dim, config_.norm_eps, config_.connector_gated_attention),
             declare_feed_forward(connectors_, block + "ff", out.width)});
    }
    if (config_.caption_projection) {
        const std::string caption = kind == "video" ? "caption_projection" : "audio_caption_projection";
        out.caption_1 = declare_linear(connectors_, caption + ".linear_1", out.width, s.context_dim);
        out.caption_2 = declare_linear(connectors_, caption + ".linear_2", s.context_dim, s.context_dim);
    }
    return out;
}

std::vector<TextProjection::LayerScale> TextProjection::scales_v1(const Array& hidden_states) const {
    const int64_t size = hidden_states.dim(1) * hidden_;
    std::vector<LayerScale> scales;
    for (auto from = hidden_states.data.begin(); from != hidden_states.data.end(); from += size) {
        const auto [least, most] = std::minmax_element(from, from + size);
        const double mean = std::accumulate(from, from + size, 0.0) / (static_cast<double>(size) + 1e-6);
        const double range = static_cast<double>(*most) - static_cast<double>(*least) + 1e-6;
        scales.push_back({static_cast<float>(mean), static_cast<float>(8 / range)});
    }
    return scales;
}

void TextProjection::normalise(const Array& hidden_states, const std::vector<LayerScale>& scales, int64_t first,
                               int64_t count, std::vector<float>& to) const {
    const int64_t tokens = hidden_states.dim(1);
    for (int64_t l = 0; l < states_; ++l)
        for (int64_t t = 0; t < count; ++t) {
            const float* row = &hidden_states.data[static_cast<size_t>((l * tokens + first + t) * hidden_)];
            LayerScale s{0, 0};
            if (scales.empty()) {
                double sum = 0;
                for (int64_t d = 0; d < hidden_; ++d) sum += static_cast<double>(row[d]) * row[d];
                s.factor = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(hidden_) + 1e-6));
            } else {
                s = scales[static_cast<size_t>(l)];
            }
            for (int64_t d = 0; d < hidden_; ++d)
                to[static_cast<size_t>((t * hidden_ + d) * states_ + l)] = (row[d] - s.shift) * s.factor;
        }
}

TextProjection::Extractor TextProjection::extractor(int64_t tokens) const {
    Extractor e{std::make_unique<Plan>(workspace_.backend(), "text projection", nullptr), nullptr, {}};
    Plan& g = *e.plan;
    e.in = g.input("normed_states", GGML_TYPE_F32, {hidden_ * states_, tokens});
    for (const Stream* s : {&video_, &audio_}) {
        const bool first = s == &video_;
        if (!s->aggregate_embed.w) {
            e.out[1] = e.out[0];
            continue;
        }
        ggml_tensor* y = product(g, s->aggregate_embed, e.in);
        if (s->aggregate_embed.b) {
            // The reference scales what goes in, so that the bias is left alone; scaling what comes out is less work.
            const double ratio = static_cast<double>(s->width) / static_cast<double>(hidden_);
            y = ggml_add(g.ctx(), ggml_scale(g.ctx(), y, static_cast<float>(std::sqrt(ratio))), s->aggregate_embed.b);
        }
        e.out[first ? 0 : 1] = g.output(y, s->kind + "_features");
    }
    return e;
}

MemoryUse TextProjection::measure(int64_t tokens) const {
    const int64_t chunk = std::min(tokens, tokens_per_chunk);
    const size_t features = static_cast<size_t>(tokens * (video_.width + audio_.width)) * sizeof(float);
    const Extractor e = extractor(chunk);
    MemoryUse most = workspace_.measure_all(*e.plan);
    most.host += features + ggml_nbytes(e.in);
    for (const Stream* s : {&video_, &audio_}) {
        const Connector c = connector(*s, nullptr);
        MemoryUse use = workspace_.measure_all(*c.plan);
        use.host += features + 2 * ggml_nbytes(c.in) + ggml_nbytes(c.rope.cos) + ggml_nbytes(c.rope.sin);
        most.also(use);
    }
    return most;
}

Context TextProjection::encode(const Array& hidden_states, Trace* trace) const {
    const int64_t tokens = hidden_states.dim(1);
    if (hidden_states.dim(0) != states_ || hidden_states.dim(2) != hidden_ || tokens < 1 || tokens > context_rows)
        throw Error(ErrorCode::invalid_request, "[text projection] hidden states must be (" + std::to_string(states_) +
                                                    ", 1..1024, " + std::to_string(hidden_) + ")");
    const std::array<std::vector<float>, 2> features = extract(hidden_states);
    const std::array<const Stream*, 2> streams = {&video_, &audio_};
    for (size_t i = 0; i < 2; ++i)
        if (const std::string name = streams[i]->kind + "_features"; trace && trace->wants(name))
            trace->tensors[name] = {{tokens, streams[i]->width}, features[i]};
    return {connect(video_, features[0], tokens, trace), connect(audio_, features[1], tokens, trace)};
}

// What it computes in, several copies of the states of a chunk, is gone before the connectors begin.
std::array<std::vector<float>, 2> TextProjection::extract(const Array& hidden_states) const {
    const int64_t tokens = hidden_states.dim(1);
    const std::array<const Stream*, 2> streams = {&video_, &audio_};
    std::array<std::vector<float>, 2> features;
    for (size_t i = 0; i < 2; ++i) features[i].reserve(static_cast<size_t>(tokens * streams[i]->width));
    const int64_t chunk = std::min(tokens, tokens_per_chunk);
    const auto [plan, x, outputs] = extractor(chunk);
    Plan& g = *plan;
    const std::vector<LayerScale> scales =
        config_.caption_projection ? scales_v1(hidden_states) : std::vector<LayerScale>{};
    std::vector<float> normed(static_cast<size_t>(chunk * hidden_ * states_));
    for (int64_t first = 0; first < tokens; first += chunk) {
        const int64_t count = std::min(chunk, tokens - first);
        normalise(hidden_states, scales, first, count, normed);
        g.set(x, normed);
        workspace_.run(g);
        for (size_t i = 0; i < 2; ++i) {
            const std::vector<float> rows = g.get(outputs[i]);
            features[i].insert(features[i].end(), rows.begin(), rows.begin() + count * streams[i]->width);
        }
    }
    return features;
}

Array TextProjection::connect(const Stream& s, const std::vector<float>& features, int64_t tokens, Trace* trace) const {
    // Row p beyond the prompt is register p mod 128: tied to the position, not counted from the end of the prompt.
    std::vector<float> rows(features);
    rows.resize(static_cast<size_t>(context_rows * s.width));
    for (int64_t p = tokens; p < context_rows; ++p)
        std::copy_n(s.registers->begin() + (p % num_registers) * s.width, s.width, rows.begin() + p * s.width);

    Positions positions;
    positions.axes = 1;
    positions.tokens = context_rows;
    for (int64_t p = 0; p < context_rows; ++p)
        positions.bounds.insert(positions.bounds.end(), 2, static_cast<float>(p));
    const RopeTable table = rope_table(positions, s.width, {config_.connector_max_pos}, config_.rope_theta);

    const auto [plan, input, rope, out] = connector(s, trace);
    Plan& g = *plan;
    g.set(input, rows);
    g.set(rope.cos, table.cos);
    g.set(rope.sin, table.sin);
    workspace_.run(g);
    return {{context_rows, out->ne[0]}, g.get(out)};
}

TextProjection::Connector TextProjection::connector(const Stream& s, Trace* trace) const {
    const std::string path = s.kind + "_embeddings_connector.";
    const float eps = static_cast<float>(config_.norm_eps);
    Connector c{std::make_unique<Plan>(workspace_.backend(), "text connectors", trace), nullptr, {}, nullptr};
    Plan& g = *c.plan;
    c.in = g.input("rows", GGML_TYPE_F32, {s.width, context_rows});
    c.rope = rope_tensors(g.inputs(), path + "rope", s.width, s.heads, context_rows);
    ggml_tensor* x = g.stage(c.in, path + "input");
    for (size_t i = 0; i < s.blocks.size(); ++i) {
        ggml_tensor* y = rms_norm(g, x, nullptr, eps);
        x = ggml_add(g.ctx(), x, attend(g, s.blocks[i].attn1, y, y, c.rope, c.rope));
        x = ggml_add(g.ctx(), x, feed_forward(g, s.blocks[i].ff, rms_norm(g, x, nullptr, eps)));
        g.stage(x, path + "transformer_1d_blocks." + std::to_string(i));
    }
    x = g.stage(rms_norm(g, x, nullptr, eps), path + "output");
    if (s.caption_1.w) x = linear(g, s.caption_2, linear(g, s.caption_1, x, Activation::gelu_tanh));
    c.out = g.output(x, s.kind + "_context");
    return c;
}

}  // namespace sdltx
