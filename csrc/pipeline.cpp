#include "pipeline.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "json.h"
#include "ltxv/noise.h"
#include "ltxv/schedule.h"

namespace sdltx {

namespace {

constexpr const char* part_names[] = {"transformer",   "text encoder",  "text projection",
                                      "video decoder", "audio decoder", "vocoder"};

// Length of the white space at the start of valid UTF-8, as Python's str.strip() sees it; 0 when there is none.
size_t leading_space(std::string_view s) {
    if (s.empty()) return 0;
    const auto c = static_cast<uint8_t>(s[0]);
    if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20)) return 1;
    for (const char* wide :
         {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
          "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"})
        if (s.rfind(wide, 0) == 0) return std::strlen(wide);
    return 0;
}

std::string_view strip(std::string_view s) {
    while (size_t n = leading_space(s)) s.remove_prefix(n);
    // From the end: step back to the start of the last code point and look forward.
    for (;;) {
        size_t at = s.size();
        while (at > 0 && (static_cast<uint8_t>(s[at - 1]) & 0xC0) == 0x80) --at;
        if (at == 0 || leading_space(s.substr(at - 1)) == 0) return s;
        s = s.substr(0, at - 1);
    }
}

ModelInfo describe(const ModelFiles& files, const ModelConfig& config) {
    ModelInfo info;
    info.version = config.version;
    // Nothing inside a distilled transformer tells it from the one it was distilled from.
    if (const TensorInfo* t = files.find("model.diffusion_model.patchify_proj.weight")) {
        std::string name = t->file->path().substr(t->file->path().find_last_of('/') + 1);
        std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
        info.distilled = name.find("distilled") != std::string::npos;
    }
    if (info.distilled) info.num_inference_steps = static_cast<int64_t>(distilled_sigmas().size()) - 1;
    info.note = files.metadata("sdltx.note").value_or("");
    if (auto text = files.metadata("sdltx.defaults")) {
        const std::string where = "sdltx.defaults metadata";
        const Json j = parse_json(*text, where);
        info.distilled = value_or(j, "distilled", info.distilled, where);
        info.width = value_or(j, "width", info.width, where);
        info.height = value_or(j, "height", info.height, where);
        info.num_frames = value_or(j, "num_frames", info.num_frames, where);
        info.frame_rate = value_or(j, "frame_rate", info.frame_rate, where);
        info.num_inference_steps = value_or(j, "steps", info.num_inference_steps, where);
    }
    return info;
}

void expect_shape(const char* name, const Array& a, const std::vector<int64_t>& shape) {
    if (a.shape == shape) return;
    throw Error(ErrorCode::invalid_request, std::string("[sample] ") + name + " must have the shape " +
                                                spell_shape(shape) + ", got " + spell_shape(a.shape));
}

}  // namespace

Pipeline::Pipeline(const std::vector<std::string>& paths, const LoadOptions& options)
    : files_(std::in_place, paths),
      backend_(std::make_unique<Backend>(options.device, options.exact, options.threads, options.offload)),
      workspace_(*backend_),
      config_(ModelConfig::load(*files_)),
      info_(describe(*files_, config_)) {
    report(options.progress, "load", 0, 1);
    if (config_.transformer) {
        transformer_ = std::make_unique<Transformer>(*files_, *backend_, *config_.transformer);
        info_.parts.push_back("transformer");
    }
    if (files_->find("language_model.model.embed_tokens.weight")) {
        text_encoder_ = std::make_unique<Gemma3Encoder>(*files_, workspace_);
        info_.parts.push_back("text encoder");
    }
    if (transformer_ && text_encoder_ && files_->has_prefix("text_embedding_projection.")) {
        text_projection_ = std::make_unique<TextProjection>(*files_, workspace_, *config_.transformer,
                                                            text_encoder_->config().hidden_size,
                                                            text_encoder_->config().num_hidden_layers + 1);
        info_.parts.push_back("text projection");
    }
    if (config_.vae) {
        video_decoder_ = std::make_unique<VideoDecoder>(*files_, workspace_, *config_.vae);
        info_.parts.push_back("video decoder");
    }
    if (config_.audio_vae) {
        audio_decoder_ = std::make_unique<AudioDecoder>(*files_, workspace_, *config_.audio_vae);
        info_.parts.push_back("audio decoder");
    }
    if (config_.audio_vae && config_.vocoder) {
        vocoder_ = std::make_unique<Vocoder>(*files_, workspace_, *config_.vocoder, config_.audio_vae->mel_bins);
        info_.parts.push_back("vocoder");
    }
    check_weights(all_weights());
    for (auto& path : files_->unused_files()) log(30, "[load] not used: " + path + " holds nothing that is needed");
    if (const size_t n = files_->unused_tensors().size())
        log(10, "[load] " + std::to_string(n) + " tensors of the files are not used");
    if (text_encoder_) tokenizer_ = Tokenizer::load(*files_);
    report(options.progress, "load", 1, 1);
}

std::vector<Weights*> Pipeline::all_weights() const {
    std::vector<Weights*> all;
    if (transformer_) all.push_back(&transformer_->weights());
    if (text_encoder_) all.push_back(&text_encoder_->weights());
    if (text_projection_)
        for (Weights* w : text_projection_->weights()) all.push_back(w);
    if (video_decoder_) all.push_back(&video_decoder_->weights());
    if (audio_decoder_) all.push_back(&audio_decoder_->weights());
    if (vocoder_) all.push_back(&vocoder_->weights());
    return all;
}

Pipeline::Stage::Stage(Pipeline& pipeline, std::vector<Weights*> networks, const Progress& progress)
    : pipeline_(pipeline) {
    int64_t total = 0, before = 0;
    for (Weights* w : networks) total += w->missing();
    const Progress overall = [&](const ProgressEvent& e) {
        return !progress || progress({e.phase, before + e.done, total});
    };
    // What was acquired before a failure is given back.
    try {
        for (Weights* w : networks) {
            const int64_t missing = w->missing();
            w->acquire(overall);
            networks_.push_back(w);
            before += missing;
        }
    } catch (...) {
        for (Weights* w : networks_) w->release();
        throw;
    }
}

Pipeline::Stage::~Stage() {
    pipeline_.workspace_.release();
    for (Weights* w : networks_) w->release();
}

Pipeline::Turn::Turn(Pipeline& pipeline) : pipeline_(pipeline) {
    std::lock_guard<std::mutex> lock(pipeline.turn_mutex_);
    const auto self = std::this_thread::get_id();
    if (pipeline.turn_depth_ > 0 && pipeline.turn_owner_ != self)
        throw Error(ErrorCode::busy,
                    "[pipeline] another thread is using it; wait for that run to end, or load a pipeline of your own");
    if (pipeline.closed_) throw Error(ErrorCode::invalid_request, "[pipeline] it is closed; load the model again");
    pipeline.turn_owner_ = self;
    ++pipeline.turn_depth_;
}

Pipeline::Turn::~Turn() {
    std::lock_guard<std::mutex> lock(pipeline_.turn_mutex_);
    --pipeline_.turn_depth_;
}

void Pipeline::close() {
    {
        std::lock_guard<std::mutex> lock(turn_mutex_);
        if (turn_depth_ > 0) throw Error(ErrorCode::busy, "[pipeline] it is in use; close it when the run has ended");
        closed_ = true;
    }
    vocoder_.reset();
    audio_decoder_.reset();
    video_decoder_.reset();
    transformer_.reset();
    text_projection_.reset();
    text_encoder_.reset();
    tokenizer_.reset();
    files_.reset();
    workspace_.release();
    backend_.reset();  // a worker is free for others
    trace_ = {};
}

std::string Pipeline::device() {
    const Turn turn(*this);
    return backend_->device_names();
}

std::vector<std::string> Pipeline::unused_tensors() {
    const Turn turn(*this);
    return files_->unused_tensors();
}

void Pipeline::trace(std::vector<std::string> patterns) {
    const Turn turn(*this);
    trace_ = {std::move(patterns), {}};
}

std::map<std::string, Array> Pipeline::traced() {
    const Turn turn(*this);
    return trace_.tensors;
}

void Pipeline::require(const std::vector<std::string>& parts) const {
    std::string missing;
    for (auto& part : parts) {
        if (std::find(std::begin(part_names), std::end(part_names), part) == std::end(part_names))
            throw Error(ErrorCode::invalid_request, "[load] there is no part '" + part + "'");
        if (std::find(info_.parts.begin(), info_.parts.end(), part) == info_.parts.end())
            missing += (missing.empty() ? "" : ", ") + part;
    }
    if (missing.empty()) return;
    std::string found;
    for (auto& part : info_.parts) found += (found.empty() ? "" : ", ") + part;
    throw Error(ErrorCode::model_mismatch,
                "[load] not among the files: " + missing + " (found: " + found + "); add the files that hold them");
}

std::vector<int32_t> Pipeline::tokenize(const std::string& prompt) {
    const Turn turn(*this);
    require({"text encoder"});
    const std::string_view text = strip(prompt);
    auto ids = tokenizer_->encode(text);
    if (static_cast<int64_t>(ids.size()) > TextProjection::context_rows) {
        log(30, "the prompt has " + std::to_string(ids.size()) + " tokens; only the first " +
                    std::to_string(TextProjection::context_rows) + " count");
        ids.resize(static_cast<size_t>(TextProjection::context_rows));
    }
    return ids;
}

Array Pipeline::hidden_states(const std::string& prompt) {
    const Turn turn(*this);
    const std::vector<int32_t> ids = tokenize(prompt);
    const Stage stage(*this, {&text_encoder_->weights()}, {});
    return text_encoder_->encode(ids, tracing());
}

Context Pipeline::encode(const std::string& prompt, const Progress& progress) {
    const Turn turn(*this);
    require({"text encoder", "text projection"});
    const std::vector<int32_t> ids = tokenize(prompt);
    std::vector<Weights*> networks = text_projection_->weights();
    networks.push_back(&text_encoder_->weights());
    const Stage stage(*this, networks, progress);
    const int64_t total = text_encoder_->config().num_hidden_layers + 1;
    report(progress, "encode", 0, total);
    const Array states =
        text_encoder_->encode(ids, tracing(), [&](int64_t done) { report(progress, "encode", done, total); });
    Context context = text_projection_->encode(states, tracing());
    report(progress, "encode", total, total);
    return context;
}

std::vector<float> Pipeline::sigmas(const SampleOptions& options) const {
    if (!options.sigmas.empty()) {
        if (options.num_inference_steps &&
            *options.num_inference_steps != static_cast<int64_t>(options.sigmas.size()) - 1)
            throw Error(ErrorCode::invalid_request,
                        "[sample] the list of sigmas and the number of steps contradict each other; give one of them");
        check_sigmas(options.sigmas);
        return options.sigmas;
    }
    const auto list = distilled_sigmas();
    const int64_t steps = options.num_inference_steps.value_or(info_.num_inference_steps);
    if (info_.distilled && steps == static_cast<int64_t>(list.size()) - 1) return list;
    return ltx2_sigmas(steps);
}

void Pipeline::check(const SampleOptions& o) const {
    latent_geometry(o.width, o.height, o.num_frames, o.frame_rate);
    sigmas(o);
}

std::unique_ptr<Sampler> Pipeline::sampler(const Context& context, const SampleOptions& o) {
    const Turn turn(*this);
    require({"transformer"});
    const TransformerConfig& c = *config_.transformer;
    const Geometry g = latent_geometry(o.width, o.height, o.num_frames, o.frame_rate);
    auto levels = sigmas(o);
    if (context.video.shape.size() != 2 || context.video.dim(0) < 1 || context.video.dim(1) != c.video.context_dim ||
        context.audio.shape.size() != 2 || context.audio.dim(0) < 1 || context.audio.dim(1) != c.audio.context_dim)
        throw Error(ErrorCode::invalid_request, "[sample] the context must be (rows, " +
                                                    std::to_string(c.video.context_dim) + ") for video and (rows, " +
                                                    std::to_string(c.audio.context_dim) +
                                                    ") for sound; make it with encode() of the same model");
    StreamState video = empty_stream(c.video.in_channels, video_positions(g.frames, g.height, g.width, g.frame_rate));
    StreamState audio = empty_stream(c.audio.in_channels, audio_positions(g.audio_frames));
    if (!o.video_noise.empty())
        expect_shape("video noise", o.video_noise, {c.video.in_channels, g.frames, g.height, g.width});
    if (!o.audio_noise.empty())
        expect_shape("audio noise", o.audio_noise, {config_.audio->channels, g.audio_frames, config_.audio->mel_bins});
    const float scale = levels.front();
    video.add_noise(o.video_noise.empty() ? normal_noise(o.seed, NoiseStream::video, video.num_tokens * video.channels)
                                          : video_to_tokens(o.video_noise),
                    scale);
    audio.add_noise(o.audio_noise.empty() ? normal_noise(o.seed, NoiseStream::audio, audio.num_tokens * audio.channels)
                                          : audio_to_tokens(o.audio_noise),
                    scale);
    return std::make_unique<Sampler>(*transformer_, workspace_, context, std::move(video), std::move(audio),
                                     std::move(levels), tracing());
}

// Reports blocks, as a step of a large model takes minutes.
void Pipeline::step(Sampler& sampler, const Progress& progress) {
    const Turn turn(*this);
    const Stage stage(*this, {&transformer_->weights()}, progress);
    const int64_t blocks = config_.transformer->num_layers, total = sampler.num_steps() * blocks,
                  before = sampler.index() * blocks;
    sampler.step([&](int64_t done) { report(progress, "denoise", before + done, total); });
}

Latents Pipeline::sample(const Context& context, const SampleOptions& options) {
    const Turn turn(*this);
    const std::unique_ptr<Sampler> loop = sampler(context, options);
    const Stage stage(*this, {&transformer_->weights()}, options.progress);
    report(options.progress, "denoise", 0, loop->num_steps() * config_.transformer->num_layers);
    while (!loop->done()) step(*loop, options.progress);
    const Geometry g = latent_geometry(options.width, options.height, options.num_frames, options.frame_rate);
    return {tokens_to_video(loop->video().latent, loop->video().channels, g),
            tokens_to_audio(loop->audio().latent, config_.audio->channels, config_.audio->mel_bins, g.audio_frames),
            options.frame_rate};
}

Velocity Pipeline::velocity(const VelocityInput& video, const VelocityInput* audio, const Perturbation& perturbation) {
    const Turn turn(*this);
    require({"transformer"});
    const Stage stage(*this, {&transformer_->weights()}, {});
    TransformerRun run(*transformer_, workspace_, *video.positions, audio ? audio->positions : nullptr,
                       {{video.context, audio ? audio->context : nullptr, perturbation}}, tracing());
    return std::move(run.velocities(video.stream, audio ? &audio->stream : nullptr).front());
}

size_t Pipeline::sample_memory(const SampleOptions& o) {
    const Turn turn(*this);
    require({"transformer"});
    const TransformerConfig& c = *config_.transformer;
    const Geometry g = latent_geometry(o.width, o.height, o.num_frames, o.frame_rate);
    const Positions video = video_positions(g.frames, g.height, g.width, g.frame_rate),
                    audio = audio_positions(g.audio_frames);
    const Array video_context{{TextProjection::context_rows, c.video.context_dim}, {}},
        audio_context{{TextProjection::context_rows, c.audio.context_dim}, {}};
    TransformerRun run(*transformer_, workspace_, video, &audio, {{&video_context, &audio_context, {}}}, nullptr);
    const TransformerRun::Memory memory = run.measure();
    workspace_.release();
    return std::accumulate(memory.working.begin(), memory.working.end(), memory.inputs);
}

std::vector<Pipeline::DeviceMemory> Pipeline::memory() {
    const Turn turn(*this);
    std::vector<DeviceMemory> devices;
    const std::vector<size_t> held = workspace_.held();
    for (size_t i = 0; i < held.size(); ++i) {
        devices.push_back({backend_->device_name(i), backend_->allocated(Backend::Use::weights, i),
                           backend_->allocated(Backend::Use::state, i), held[i]});
    }
    for (const Weights* w : all_weights()) devices.back().mapped += w->mapped();
    return devices;
}

void Pipeline::decode(const Array& video, const Tiling& tiling, const VideoDecoder::Sink& sink,
                      const Progress& progress) {
    const Turn turn(*this);
    require({"video decoder"});
    const Stage stage(*this, {&video_decoder_->weights()}, progress);
    video_decoder_->decode(video, tiling, sink, progress, tracing());
}

size_t Pipeline::decode_memory(std::array<int64_t, 3> shape, const Tiling& tiling) {
    const Turn turn(*this);
    require({"video decoder"});
    const size_t bytes = video_decoder_->measure(shape, tiling);
    workspace_.release();
    return bytes;
}

Waveform Pipeline::decode_audio(const Array& audio, double piece_seconds, const Progress& progress) {
    const Turn turn(*this);
    require({"audio decoder", "vocoder"});
    const Stage stage(*this, {&audio_decoder_->weights(), &vocoder_->weights()}, progress);
    const Waveform wave =
        vocoder_->synthesise(audio_decoder_->decode(audio, tracing()), piece_seconds, progress, tracing());
    for (float v : wave.samples.data)
        if (!std::isfinite(v))
            throw Error(ErrorCode::backend,
                        "[decode] the vocoder gave values that are not finite; check the model files");
    return wave;
}

Frames to_bytes(const Array& frames) {
    Frames out{frames.dim(0), frames.dim(1), frames.dim(2), std::vector<uint8_t>(frames.data.size())};
    for (size_t i = 0; i < out.data.size(); ++i) {
        if (!std::isfinite(frames.data[i]))
            throw Error(
                ErrorCode::backend,
                "[decode] the decoder gave values that are not finite; check the model files, or try precision f32");
        out.data[i] = static_cast<uint8_t>(std::clamp((frames.data[i] + 1.0f) / 2.0f, 0.0f, 1.0f) * 255.0f);
    }
    return out;
}

}  // namespace sdltx
