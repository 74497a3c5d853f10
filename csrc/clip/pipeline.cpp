#include "pipeline.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "base/log.h"
#include "gemma/prompt.h"
#include "ltxv/mel.h"
#include "model/names.h"

namespace sdltx {

namespace {

// All weights of a network have their use, or the configuration is not theirs.
void report_unused(const Networks& networks) {
    const auto& unexpected = networks.unexpected;
    std::string text;
    for (size_t i = 0; i < std::min<size_t>(unexpected.size(), 3); ++i) text += (i ? ", " : "") + unexpected[i]->name;
    if (unexpected.size() > 3) text += ", ...";
    if (!unexpected.empty())
        log(30, "[load] " + std::to_string(unexpected.size()) + " weights of the files are not used: " + text +
                    "; do the configuration and the weights belong together?");
    if (const size_t others = networks.unused.size() - unexpected.size())
        log(10, "[load] " + std::to_string(others) + " tensors of the files have no use in making clips");
}

}  // namespace

Pipeline::Pipeline(const std::vector<std::string>& paths, const LoadOptions& options)
    : files_(std::make_shared<const ModelFiles>(paths, ltx_naming())),
      backend_(
          std::make_unique<Backend>(options.device, options.exact, options.threads, options.offload, options.limits)),
      workspace_(std::make_unique<Workspace>(*backend_)),
      config_(ModelConfig::load(*files_)),
      info_(describe(*files_, config_)) {
    report(options.progress, "load", 0, 1);
    networks_.emplace(*files_, config_, *workspace_);
    info_.parts = networks_->parts;
    for (auto& path : files_->unused_files()) log(30, "[load] not used: " + path + " holds nothing that is needed");
    for (auto& addition : files_->additions())
        if (addition.kind == diffusion_decoder_kind && !networks_->video_decoder)
            log(30, "[load] not used: " + addition.file->path() + ", which is " + addition.kind +
                        "; add the file of the convolutional VAE (video-vae-conv)");
    for (auto& doubt : sdltx::doubts(*files_, config_)) log(30, doubt);
    report_unused(*networks_);
    report(options.progress, "load", 1, 1);
}

Pipeline::~Pipeline() { release(); }

Pipeline::Hold::Hold(Pipeline& pipeline, std::vector<Weights*> networks, const Progress& progress, const MemoryUse& use)
    : pipeline_(pipeline) {
    pipeline.make_room(networks, use);
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
    ++pipeline.holds_;
}

// One may lie in another, such as that of each step of a run: what is computed in stays until the outermost ends.
Pipeline::Hold::~Hold() {
    if (--pipeline_.holds_ == 0) pipeline_.workspace_->release();
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
    if (pipeline.backend_->remote()) whole_system_calls_.emplace();
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
    release();
}

void Pipeline::release() {
    loras_.clear();
    const WholeSystemCalls for_worker;
    default_negative_.reset();
    networks_.reset();
    files_.reset();
    workspace_.reset();
    backend_.reset();  // a worker is free for others
    trace_ = {};
}

std::shared_ptr<const ModelFiles> Pipeline::files() const {
    std::lock_guard<std::mutex> lock(turn_mutex_);
    if (closed_) throw Error(ErrorCode::invalid_request, "[pipeline] it is closed; load the model again");
    return files_;
}

std::string Pipeline::device() {
    const Turn turn(*this);
    return backend_->device_names();
}

namespace {

// A number made of what the tensors that `counts` takes begin with, and of their types and sizes.
template <typename Counts>
std::string fingerprint(const ModelFiles& files, size_t bytes_of_each, Counts&& counts) {
    std::map<std::string, const TensorInfo*> weights;
    for (auto& file : files.files())
        for (auto& t : file->tensors())
            if (counts(t)) weights[t.name] = &t;
    uint64_t hash = 14695981039346656037u;  // FNV-1a
    const auto add = [&](const uint8_t* data, size_t count) {
        for (size_t i = 0; i < count; ++i) hash = (hash ^ data[i]) * 1099511628211u;
    };
    for (auto& [name, t] : weights) {
        add(t->data, std::min(t->nbytes, bytes_of_each));
        check_mapped(t->data);
        if (t->nbytes <= bytes_of_each) continue;
        const std::string more = t->dtype + std::to_string(t->nbytes);
        add(reinterpret_cast<const uint8_t*>(more.data()), more.size());
    }
    std::ostringstream text;
    text << std::hex << hash;
    return text.str();
}

}  // namespace

std::string Pipeline::decoder_fingerprint() {
    const Turn turn(*this);
    require({Part::video_decoder});
    constexpr size_t small = size_t{64} << 10;
    return fingerprint(*files_, small, [](const TensorInfo& t) {
        return t.nbytes <= small && t.name.rfind("vae.", 0) == 0 && t.name.rfind("vae.encoder.", 0) != 0;
    });
}

namespace {

bool encodes_prompts(const TensorInfo& t) {
    const auto network = owner_of(t.name).network;
    return network == Part::text_encoder || network == Part::text_projection;
}

}  // namespace

std::vector<std::string> Pipeline::opened() {
    const Turn turn(*this);
    std::vector<std::string> paths;
    for (auto& file : files_->files()) paths.push_back(file->path());
    return paths;
}

size_t Pipeline::encoder_bytes() {
    const Turn turn(*this);
    size_t bytes = 0;
    for (auto& file : files_->files())
        for (auto& t : file->tensors())
            if (encodes_prompts(t)) bytes += t.nbytes;
    return bytes;
}

std::string Pipeline::encoder_fingerprint() {
    const Turn turn(*this);
    require({Part::text_encoder, Part::text_projection});
    // Of each weight a little, as they are read from a disk: no two models share it.
    constexpr size_t some = 256;
    return fingerprint(*files_, some, encodes_prompts);
}

int64_t Pipeline::latent_channels() const {
    return config_.vae           ? config_.vae->latent_channels
           : config_.transformer ? config_.transformer->video.in_channels
                                 : 0;
}

std::vector<std::string> Pipeline::unused_tensors() {
    const Turn turn(*this);
    return files_->unused_tensors();
}

void Pipeline::trace(std::vector<std::string> patterns) {
    const Turn turn(*this);
    trace_ = {std::move(patterns), {}, {}};
}

std::map<std::string, Array> Pipeline::traced() {
    const Turn turn(*this);
    return trace_.tensors;
}

std::map<std::string, int64_t> Pipeline::traced_runs() {
    const Turn turn(*this);
    return trace_.runs;
}

void Pipeline::require(const std::vector<Part>& parts) const {
    const auto list = [](const std::vector<Part>& of) {
        std::string text;
        for (Part part : of) text += (text.empty() ? "" : ", ") + std::string(name_of(part));
        return text;
    };
    std::vector<Part> missing;
    for (Part part : parts)
        if (!info_.has(part)) missing.push_back(part);
    if (!missing.empty())
        throw Error(ErrorCode::model_mismatch, "[load] not among the files: " + list(missing) +
                                                   " (found: " + list(info_.parts) + "); add the files that hold them");
}

std::vector<int32_t> Pipeline::tokenize(const std::string& prompt) {
    const Turn turn(*this);
    require({Part::text_encoder});
    const std::string_view text = strip(prompt);
    auto ids = networks_->tokenizer->encode(text);
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
    const Hold hold(*this, {&networks_->text_encoder->weights()}, {});
    return networks_->text_encoder->encode(ids, tracing());
}

std::vector<Weights*> Pipeline::encoding() {
    std::vector<Weights*> networks = networks_->text_projection->weights();
    networks.push_back(&networks_->text_encoder->weights());
    return networks;
}

Context Pipeline::encode(const std::string& prompt, const Progress& progress) {
    const Turn turn(*this);
    require({Part::text_encoder, Part::text_projection});
    const std::vector<int32_t> ids = tokenize(prompt);
    const Hold hold(*this, encoding(), progress);
    const int64_t total = networks_->text_encoder->num_hidden_layers() + 1;
    report(progress, "encode", 0, total);
    const Array states =
        networks_->text_encoder->encode(ids, tracing(), [&](int64_t done) { report(progress, "encode", done, total); });
    Context context = networks_->text_projection->encode(states, tracing());
    report(progress, "encode", total, total);
    return context;
}

double Pipeline::duration(const Context& context) {
    const Turn turn(*this);
    require({Part::duration_head});
    const Hold hold(*this, {&networks_->duration_head->weights()}, {});
    return networks_->duration_head->seconds(context, tracing());
}

std::unique_ptr<Sampler> Pipeline::sampler(const Context& context, const Context* negative,
                                           const SampleSettings& settings, const Inputs& inputs,
                                           const Progress& progress) {
    const Turn turn(*this);
    require({Part::transformer});
    if (settings.guidance.needs_negative() && !negative) {
        require_negative();
        if (!default_negative_) default_negative_ = encode(info_.negative_prompt, progress);
        negative = &*default_negative_;
    }
    Start start{inputs.video, inputs.audio, loras(inputs.loras), inputs.draw, inputs.keeps_text};
    for (Condition& c : encoded(inputs.conditions, settings, progress))
        start.video.keyframes.push_back({std::move(c.latent), frame_of(c, settings.num_frames), c.strength});
    return one_stage(*networks_->transformer, *workspace_, *config_.audio, context, negative, settings, start,
                     tracing());
}

void Pipeline::require_negative() const {
    if (!default_negative_ && !(networks_->text_encoder && networks_->text_projection))
        throw Error(ErrorCode::model_mismatch,
                    "[sample] guidance needs the context of a negative prompt, and no text encoder is among the files; "
                    "pass that context, or a guidance_scale of 1 for video and sound");
}

// Reports blocks, as a step of a large model takes minutes.
void Pipeline::step(Sampler& sampler, const Progress& progress) {
    const Turn turn(*this);
    const SampleState& state = sampler.state();
    networks_->transformer->use_streams(!state.video.empty(), !state.audio.empty());
    const Hold hold(*this, denoising(sampler.loras()), progress);
    const int64_t blocks = config_.transformer->num_layers, total = sampler.num_calls() * blocks;
    int64_t reported = sampler.calls() * blocks;
    sampler.step([&](int64_t done) {
        reported = sampler.calls() * blocks + done;
        report(progress, "denoise", reported, total);
    });
    if (reported < sampler.calls() * blocks) report(progress, "denoise", sampler.calls() * blocks, total);
}

Latents Pipeline::sample(const Context& context, const Context* negative, const SampleSettings& settings,
                         const Inputs& inputs, const Progress& progress, const OnStep& on_step) {
    const Turn turn(*this);
    const std::unique_ptr<Sampler> loop = sampler(context, negative, settings, inputs, progress);
    networks_->transformer->use_streams(settings.video, settings.audio);
    const Hold hold(*this, denoising(loop->loras()), progress);
    report(progress, "denoise", 0, loop->num_calls() * config_.transformer->num_layers);
    while (!loop->done()) {
        step(*loop, progress);
        if (!on_step) continue;
        SampleState estimate = loop->state();
        estimate.video.latent = loop->denoised().video;
        estimate.audio.latent = loop->denoised().audio;
        if (!on_step(loop->index(), loop->num_steps(), latents_of(estimate, *config_.audio, settings)))
            throw Error(ErrorCode::cancelled, "[denoise] stopped");
    }
    return latents_of(loop->state(), *config_.audio, settings);
}

std::shared_ptr<Loras> Pipeline::loras(const std::vector<LoraFile>& files) {
    if (files.empty()) return nullptr;
    std::vector<std::pair<std::shared_ptr<Lora>, float>> found;
    for (const LoraFile& file : files) {
        if (!std::isfinite(file.strength))
            throw Error(ErrorCode::invalid_request, "[lora] the strength of " + file.path + " is not a finite number");
        auto open = std::find_if(loras_.begin(), loras_.end(), [&](auto& lora) { return lora->path() == file.path; });
        if (open != loras_.end() && !(*open)->is_current()) {
            loras_.erase(open);  // gives its memory back first
            open = loras_.end();
        }
        if (open == loras_.end())
            open = loras_.insert(open, std::make_shared<Lora>(
                                           file.path, std::make_unique<ModelFiles>(file.path, lora_kind, ltx_naming()),
                                           networks_->transformer->weights()));
        found.emplace_back(*open, file.strength);
    }
    return std::make_shared<Loras>(std::move(found));
}

void Pipeline::keep_loras(const std::vector<LoraFile>& kept) {
    const auto unwanted = [&](const std::shared_ptr<Lora>& lora) {
        return std::none_of(kept.begin(), kept.end(), [&](const LoraFile& file) { return file.path == lora->path(); });
    };
    loras_.erase(std::remove_if(loras_.begin(), loras_.end(), unwanted), loras_.end());
}

std::vector<Weights*> Pipeline::denoising(const Loras* loras) {
    std::vector<Weights*> weights{&networks_->transformer->weights()};
    if (loras)
        for (Weights* of_file : loras->weights()) weights.push_back(of_file);
    return weights;
}

Velocity Pipeline::velocity(const VelocityInput& video, const VelocityInput* audio, const Perturbation& perturbation,
                            const std::vector<LoraFile>& lora_files) {
    const Turn turn(*this);
    require({Part::transformer});
    const std::shared_ptr<Loras> with = loras(lora_files);
    networks_->transformer->use_streams(true, audio != nullptr);
    const Hold hold(*this, denoising(with.get()), {});
    TransformerRun run(*networks_->transformer, *workspace_, {video.positions, audio ? audio->positions : nullptr, {}},
                       {{video.context, audio ? audio->context : nullptr, perturbation}}, tracing(), with);
    return std::move(run.velocities(&video.stream, audio ? &audio->stream : nullptr, {0}).front());
}

void Pipeline::check_latents(const std::vector<int64_t>* video, const std::vector<int64_t>* audio) {
    const Turn turn(*this);
    const bool pictures = video && !(video->size() == 4 && (*video)[1] == 0);  // else of sound alone
    if (networks_->video_decoder && pictures) networks_->video_decoder->check_latents(*video);
    if (networks_->audio_decoder && audio) networks_->audio_decoder->check_latents(*audio);
}

void Pipeline::decode(const Array& video, const Tiling& tiling, const VideoDecoder::Sink& sink,
                      const Progress& progress) {
    const Turn turn(*this);
    require({Part::video_decoder});
    const Hold hold(*this, {&networks_->video_decoder->weights()}, progress);
    networks_->video_decoder->decode(video, tiling, sink, progress, tracing());
}

Array Pipeline::encode_video(const Footage& footage, const Tiling& tiling, const Progress& progress) {
    const Turn turn(*this);
    require({Part::video_encoder});
    const Hold hold(*this, {&networks_->video_encoder->weights()}, progress);
    return networks_->video_encoder->encode(footage, tiling, progress, tracing());
}

Waveform Pipeline::decode_audio(const Array& audio, double piece_seconds, const Progress& progress) {
    const Turn turn(*this);
    require({Part::audio_decoder, Part::vocoder});
    const Hold hold(*this, {&networks_->audio_decoder->weights(), &networks_->vocoder->weights()}, progress);
    if (!(piece_seconds >= 0 && piece_seconds <= 1e6))
        throw Error(ErrorCode::invalid_request, "[decode] pieces of sound last 0 (all at once) to 1,000,000 seconds");
    networks_->audio_decoder->check_latents(audio.shape);
    const int64_t total =
        1 + networks_->vocoder->pieces(4 * (audio.dim(1) - 1) + 1, piece_seconds);  // the spectrogram first
    int64_t done = 0;
    report(progress, "sound", done, total);
    const Array mel = networks_->audio_decoder->decode(audio, tracing());
    report(progress, "sound", ++done, total);
    const Waveform wave = networks_->vocoder->synthesise(
        mel, piece_seconds, [&] { report(progress, "sound", ++done, total); }, tracing());
    // A sample here and there is nothing that anybody hears.
    if (const auto all = static_cast<int64_t>(wave.samples.data.size()); wave.clipped * 1000 > all)
        log(30, "[sound] " + std::to_string((wave.clipped * 1000 + all / 2) / all) +
                    " of 1000 samples are louder than a file can hold and were clipped");
    for (float v : wave.samples.data)
        if (!std::isfinite(v))
            throw Error(ErrorCode::backend,
                        "[decode] the vocoder gave values that are not finite; check the model files");
    return wave;
}

Array Pipeline::encode_audio(const Waveform& sound) {
    const Turn turn(*this);
    require({Part::audio_encoder});
    const int64_t sides = config_.audio_vae->out_channels;
    if (sound.samples.shape.size() != 2 || sound.samples.dim(0) != sides)
        throw Error(ErrorCode::invalid_request, "[sound] expected sound of (" + std::to_string(sides) +
                                                    " channels, samples), got " + spell_shape(sound.samples.shape));
    const Hold hold(*this, {&networks_->audio_encoder->weights()}, {});
    const Array mel = log_mel(resample(sound.samples, sound.sample_rate, analysis_rate), config_.audio_vae->mel_bins);
    return networks_->audio_encoder->encode(mel, tracing());
}

}  // namespace sdltx
