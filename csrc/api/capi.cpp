// The C ABI: converts, calls the core, converts. sdltx.h has the contracts.
#include <cmath>
#include <optional>

#include "base/log.h"
#include "capi_run.h"
#include "ltxv/tiling.h"

namespace sdltx {

namespace {

static_assert(std::is_same_v<sdltx_log_fn, LogCallback>);

constexpr double sound_piece_seconds = 4;
constexpr double default_frame_rate = 24;  // of latents of sound alone, where it means nothing

void give_optional(std::optional<int64_t>& to, int64_t value) {
    if (value != SDLTX_DEFAULT_INT) to = value;
}
void give_optional(std::optional<double>& to, double value) {
    if (value != SDLTX_DEFAULT_FLOAT) to = value;
}
void give_optional(std::optional<std::string>& to, const char* value) {
    if (value) to = value;
}

constexpr size_t sample_options_sizes[SDLTX_SAMPLE_OPTIONS_VERSION] = {
    offsetof(sdltx_sample_options, images), offsetof(sdltx_sample_options, upscalers),
    offsetof(sdltx_sample_options, loras), offsetof(sdltx_sample_options, recipe), sizeof(sdltx_sample_options)};

sdltx_sample_options sample_options(const sdltx_sample_options* given) {
    sdltx_sample_options o;
    sdltx_sample_options_init(&o, SDLTX_SAMPLE_OPTIONS_VERSION);
    take_options(o, given, "sample options", sample_options_sizes);
    return o;
}

std::vector<Condition> conditions_of(const sdltx_sample_options& o) {
    std::vector<Condition> out;
    if (o.num_images && !o.images) refuse("images", "is NULL");
    for (size_t i = 0; i < o.num_images; ++i) {
        const sdltx_image& image = o.images[i];
        int64_t bytes = 3;
        if (!image.rgb || image.height < 1 || image.width < 1 || __builtin_mul_overflow(bytes, image.height, &bytes) ||
            __builtin_mul_overflow(bytes, image.width, &bytes))
            refuse("image", "number " + std::to_string(i) + " has no pixels");
        Condition& c = out.emplace_back();
        c.image = {1, image.height, image.width, {image.rgb, image.rgb + bytes}};
        c.frame = image.frame;
        c.strength = static_cast<float>(image.strength);
    }
    return out;
}

std::vector<LoraFile> loras_of(const sdltx_lora* loras, size_t count) {
    if (count && !loras) refuse("loras", "is NULL");
    std::vector<LoraFile> files;
    for (size_t i = 0; i < count; ++i)
        files.push_back({text(loras[i].path, "path of a LoRA"), static_cast<float>(loras[i].strength)});
    return files;
}

Request request_of(const sdltx_sample_options& c) {
    Request request;
    ClipOptions& o = request.options;
    if (c.audio < -1 || c.audio > 1) refuse("sample options", "audio must be -1, 0 or 1");
    if (c.audio >= 0) o.audio = c.audio == 1;
    give_optional(o.preset, c.preset);
    give_optional(o.sampler, c.sampler);
    give_optional(o.width, c.width);
    give_optional(o.height, c.height);
    give_optional(o.num_frames, c.num_frames);
    give_optional(o.frame_rate, c.frame_rate);
    give_optional(o.num_inference_steps, c.num_inference_steps);
    if (c.sigmas) o.sigmas.emplace(c.sigmas, c.sigmas + c.num_sigmas);
    give_optional(o.seed, c.seed);
    give_optional(o.guidance_scale, c.guidance_scale);
    give_optional(o.audio_guidance_scale, c.audio_guidance_scale);
    give_optional(o.stg_scale, c.stg_scale);
    give_optional(o.audio_stg_scale, c.audio_stg_scale);
    give_optional(o.modality_scale, c.modality_scale);
    give_optional(o.audio_modality_scale, c.audio_modality_scale);
    give_optional(o.guidance_rescale, c.guidance_rescale);
    give_optional(o.audio_guidance_rescale, c.audio_guidance_rescale);
    give_optional(o.guidance_skip_steps, c.guidance_skip_steps);
    give_optional(o.audio_guidance_skip_steps, c.audio_guidance_skip_steps);
    if (c.stg_blocks) o.stg_blocks.emplace(c.stg_blocks, c.stg_blocks + c.num_stg_blocks);
    const bool lowest = c.guidance_interval[0] != SDLTX_DEFAULT_FLOAT,
               highest = c.guidance_interval[1] != SDLTX_DEFAULT_FLOAT;
    if (lowest != highest) refuse("sample options", "guidance_interval needs both ends");
    if (lowest) o.guidance_interval = {{c.guidance_interval[0], c.guidance_interval[1]}};
    give_optional(o.guidance_method, c.guidance_method);
    give_optional(o.apg_eta, c.apg_eta);
    give_optional(o.apg_threshold, c.apg_threshold);
    give_optional(o.recipe, c.recipe);
    give_optional(o.distilled_lora, c.distilled_lora);
    if (c.num_upscalers && !c.upscalers) refuse("upscalers", "is NULL");
    o.upscaler = strings(c.upscalers, c.num_upscalers, "upscalers");
    o.loras = loras_of(c.loras, c.num_loras);
    if (c.second_loras) o.loras_stage2 = loras_of(c.second_loras, c.num_second_loras);
    request.images = conditions_of(c);
    request.noise = {array_of(c.video_noise, "video noise"), array_of(c.audio_noise, "audio noise")};
    if (c.initial) request.initial = existing(c.initial, "initial").values;
    return request;
}

sdltx_decode_options decode_options(const sdltx_decode_options* given) {
    sdltx_decode_options o;
    sdltx_decode_options_init(&o, SDLTX_DECODE_OPTIONS_VERSION);
    take_options(o, given, "decode options", {sizeof(sdltx_decode_options)});
    if (o.reserved != 0) refuse("decode options", "reserved must be 0");
    if (!o.pictures && !o.sound) refuse("decode options", "neither pictures nor sound are wanted");
    return o;
}

Tiling tiling_of(const sdltx_decode_options& o) {
    const Tiling tiling{o.tile_size, o.tile_overlap, o.tile_frames, o.tile_frame_overlap};
    check(tiling);
    return tiling;
}

// --- runs ---

Context encode(Pipeline& pipeline, const char* prompt, Watch& watch) {
    const Run run(pipeline, watch);
    return pipeline.encode(prompt, watch.progress());
}

Pipeline::OnStep on_step_of(const sdltx_sample_options& o) {
    if (!o.on_step) return {};
    return [&o](int64_t done, int64_t steps, const Latents& estimate) {
        const sdltx_latents shown{estimate, "{}"};
        const Lent lent(shown);
        return o.on_step(done, steps, &shown, o.on_step_payload) == 0;
    };
}

std::unique_ptr<sdltx_latents> sample(Pipeline& pipeline, const Context& context, const Context* negative,
                                      const sdltx_sample_options& o, const Request& request, const ClipPlan& plan) {
    Json told = to_json(plan);
    if (request.options.seed.value_or(-1) < 0 && !plan.draws_noise(request)) told["seed"] = nullptr;
    std::string settings = spelled(told);  // what cannot be written should not cost a run
    Watch watch(o.progress, o.progress_payload);
    const Run run(pipeline, watch);
    Latents latents = pipeline.sample(context, negative, plan, request, {}, watch.progress(), on_step_of(o));
    return std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(latents), std::move(settings)});
}

void require_decoders(const Pipeline& pipeline, const sdltx_decode_options& o) {
    if (o.pictures) pipeline.require({Part::video_decoder});
    if (!o.pictures) pipeline.require({Part::audio_decoder, Part::vocoder});
}

std::unique_ptr<sdltx_video> decode(Pipeline& pipeline, const sdltx_latents& given, const sdltx_decode_options& o) {
    const Latents& latents = given.values;
    const Tiling tiling = tiling_of(o);
    require_decoders(pipeline, o);
    if (!o.pictures && latents.audio.empty()) refuse("decode", "the latents have no sound");
    if (o.pictures && latents.video.empty()) refuse("decode", "the latents have no pictures; set `pictures` to 0");
    Watch watch(o.progress, o.progress_payload);
    const Run run(pipeline, watch);
    pipeline.check_latents(latents.video.empty() ? nullptr : &latents.video.shape,
                           latents.audio.empty() ? nullptr : &latents.audio.shape);
    Video out;
    out.frame_rate = latents.frame_rate;
    const auto keep = [&](const Array& values) {
        const Frames f = to_bytes(values);
        const int64_t first = out.frames.num_frames;
        out.frames.num_frames += f.num_frames;
        out.frames.height = f.height;
        out.frames.width = f.width;
        if (!o.on_frames)
            out.frames.data.insert(out.frames.data.end(), f.data.begin(), f.data.end());
        else if (o.on_frames(f.data.data(), first, f.num_frames, f.height, f.width, o.on_frames_payload) != 0)
            throw Error(ErrorCode::cancelled, "[decode] stopped");
    };
    if (o.pictures) pipeline.decode(latents.video, tiling, keep, watch.progress());
    const bool sounds = pipeline.info().has(Part::audio_decoder) && pipeline.info().has(Part::vocoder);
    if (o.sound && sounds && !latents.audio.empty())
        out.audio = pipeline.decode_audio(latents.audio, sound_piece_seconds, watch.progress());
    return std::unique_ptr<sdltx_video>(new sdltx_video{std::move(out), given.settings});
}

Json describe(Pipeline& pipeline) {
    const ModelInfo& info = pipeline.info();
    Json parts = Json::array();
    for (Part part : info.parts) parts.push_back(name_of(part));
    const SampleSettings s = pipeline.defaults();
    return {{"model", info.name},
            {"version", info.version},
            {"distilled", info.distilled},
            {"preset", s.preset},
            {"defaults",
             {{"width", s.width},
              {"height", s.height},
              {"num_frames", s.num_frames},
              {"frame_rate", s.frame_rate},
              {"steps", s.num_inference_steps()}}},
            {"negative_prompt", info.negative_prompt},
            {"note", info.note.empty() ? Json() : Json(info.note)},
            {"device", pipeline.device()},
            {"parts", parts},
            {"has_audio", info.has(Part::audio_decoder) && info.has(Part::vocoder)},
            {"latent_channels", pipeline.latent_channels()},
            {"unused_tensors", pipeline.unused_tensors()}};
}

}  // namespace

}  // namespace sdltx

using namespace sdltx;

const char* sdltx_last_error(void) { return last_error.c_str(); }
const char* sdltx_version(void) { return SDLTX_VERSION; }
uint32_t sdltx_abi_version(void) { return SDLTX_ABI_VERSION; }

void sdltx_explain_crashes(void) {
    guarded([] { install_last_words(); });
}

void sdltx_set_log(sdltx_log_fn fn, void* payload) {
    guarded([&] { set_log(fn, payload); });
}

void sdltx_string_free(char* string) { std::free(string); }

sdltx_status sdltx_load_options_init(sdltx_load_options* options, uint32_t version) {
    return guarded([&] {
        result(options, "load options") = {};
        check_version(version, SDLTX_LOAD_OPTIONS_VERSION, "load options");
        options->version = version;
    });
}

sdltx_status sdltx_load(const char* const* paths, size_t num_paths, const sdltx_load_options* given,
                        sdltx_pipeline** pipeline) {
    return guarded([&] {
        emptied(pipeline, "pipeline");
        sdltx_load_options o;
        sdltx_load_options_init(&o, SDLTX_LOAD_OPTIONS_VERSION);
        take_options(o, given, "load options", {sizeof(sdltx_load_options)});
        if (o.precision != SDLTX_PRECISION_AUTO && o.precision != SDLTX_PRECISION_F32)
            refuse("load options", "precision " + std::to_string(o.precision) + " is unknown");
        if (o.offload < SDLTX_OFFLOAD_NONE || o.offload > SDLTX_OFFLOAD_BLOCKS)
            refuse("load options", "offload " + std::to_string(o.offload) + " is unknown");
        const std::vector<std::string> files = model_paths(paths, num_paths);
        Watch watch(o.progress, o.progress_payload);
        const LoadOptions options{o.device ? o.device : "cpu", o.precision == SDLTX_PRECISION_F32, o.threads,
                                  static_cast<Offload>(o.offload), watch.progress()};
        give(pipeline, std::unique_ptr<sdltx_pipeline>(new sdltx_pipeline{{files, options}}));
    });
}

void sdltx_pipeline_free(sdltx_pipeline* pipeline) { free_object(pipeline); }

sdltx_status sdltx_describe(sdltx_pipeline* pipeline, char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = copied(describe(existing(pipeline, "pipeline").core));
    });
}

sdltx_status sdltx_memory(sdltx_pipeline* pipeline, char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json devices = Json::array();
        for (const Pipeline::DeviceMemory& d : existing(pipeline, "pipeline").core.memory())
            devices.push_back({{"device", d.device},
                               {"weights", d.weights},
                               {"mapped", d.mapped},
                               {"inputs", d.inputs},
                               {"working", d.working}});
        *json = copied(devices);
    });
}

sdltx_status sdltx_encode(sdltx_pipeline* pipeline, const char* prompt, sdltx_progress_fn progress, void* payload,
                          sdltx_context** context) {
    return guarded([&] {
        emptied(context, "context");
        Watch watch(progress, payload);
        Context c = encode(existing(pipeline, "pipeline").core, text(prompt, "prompt"), watch);
        give(context, std::unique_ptr<sdltx_context>(new sdltx_context{std::move(c)}));
    });
}

sdltx_status sdltx_tokenize(sdltx_pipeline* pipeline, const char* string, int32_t* ids, size_t capacity,
                            size_t* count) {
    return guarded([&] {
        result(count, "count") = 0;
        const std::vector<int32_t> all = existing(pipeline, "pipeline").core.tokenize(text(string, "text"));
        if (ids) std::copy_n(all.begin(), std::min(capacity, all.size()), ids);
        *count = all.size();
    });
}

void sdltx_context_free(sdltx_context* context) { free_object(context); }

sdltx_status sdltx_context_new(const sdltx_array* video, const sdltx_array* audio, sdltx_context** context) {
    return guarded([&] {
        emptied(context, "context");
        Context c{array_of(video, "video"), array_of(audio, "audio")};
        require_dims(c.video, 2, "video", "(rows, width)");
        if (!c.audio.empty()) require_dims(c.audio, 2, "audio", "(rows, width)");
        give(context, std::unique_ptr<sdltx_context>(new sdltx_context{std::move(c)}));
    });
}

sdltx_status sdltx_context_get(const sdltx_context* context, sdltx_array* video, sdltx_array* audio) {
    return guarded([&] {
        const Context& c = existing(context, "context").values;
        if (video) *video = borrowed(c.video);
        if (audio) *audio = borrowed(c.audio);
    });
}

sdltx_status sdltx_sample_options_init(sdltx_sample_options* options, uint32_t version) {
    return guarded([&] {
        result(options, "sample options").version = 0;  // of no version, should it be unknown
        check_version(version, SDLTX_SAMPLE_OPTIONS_VERSION, "sample options");
        sdltx_sample_options o{};
        o.version = version;
        o.audio = -1;
        for (int64_t* number : {&o.width, &o.height, &o.num_frames, &o.num_inference_steps, &o.seed,
                                &o.guidance_skip_steps, &o.audio_guidance_skip_steps})
            *number = SDLTX_DEFAULT_INT;
        for (double* number :
             {&o.frame_rate, &o.guidance_scale, &o.audio_guidance_scale, &o.stg_scale, &o.audio_stg_scale,
              &o.modality_scale, &o.audio_modality_scale, &o.guidance_rescale, &o.audio_guidance_rescale,
              &o.guidance_interval[0], &o.guidance_interval[1], &o.apg_eta, &o.apg_threshold})
            *number = SDLTX_DEFAULT_FLOAT;
        std::memcpy(options, &o, sample_options_sizes[version - 1]);  // the caller's struct may be that of the version
    });
}

sdltx_status sdltx_check(const sdltx_sample_options* options) {
    return guarded([&] { check(request_of(sample_options(options)).options); });
}

sdltx_status sdltx_resolve(sdltx_pipeline* pipeline, const sdltx_sample_options* options, char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = copied(to_json(existing(pipeline, "pipeline").core.resolve(request_of(sample_options(options)))));
    });
}

sdltx_status sdltx_doubts(sdltx_pipeline* pipeline, const sdltx_sample_options* options, char** json) {
    return guarded([&] {
        emptied(json, "json");
        const Pipeline& core = existing(pipeline, "pipeline").core;
        *json = copied(Json(core.doubts(core.resolve(request_of(sample_options(options))))));
    });
}

sdltx_status sdltx_sample(sdltx_pipeline* pipeline, const sdltx_context* context, const sdltx_context* negative,
                          const sdltx_sample_options* options, sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const Context& wanted = existing(context, "context").values;
        const Context* unwanted = negative ? &existing(negative, "negative").values : nullptr;
        const sdltx_sample_options o = sample_options(options);
        const Request request = request_of(o);
        give(latents, sample(core, wanted, unwanted, o, request, core.resolve(request)));
    });
}

void sdltx_latents_free(sdltx_latents* latents) { free_object(latents); }

sdltx_status sdltx_latents_new(const sdltx_array* video, const sdltx_array* audio, double frame_rate,
                               sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Latents l{array_of(video, "video"), array_of(audio, "audio"), frame_rate};
        if (l.video.empty() && l.audio.empty()) refuse("latents", "there is neither video nor audio");
        if (!l.video.empty()) require_dims(l.video, 4, "video", "(channels, F', H', W')");
        if (!l.audio.empty()) require_dims(l.audio, 3, "audio", "(channels, T, mel bins)");
        if (!(std::isfinite(frame_rate) && frame_rate > 0)) refuse("frame rate", "must be above 0");
        give(latents, std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(l), "{}"}));
    });
}

sdltx_status sdltx_latents_get(const sdltx_latents* latents, sdltx_array* video, sdltx_array* audio,
                               double* frame_rate) {
    return guarded([&] {
        const Latents& l = existing(latents, "latents").values;
        if (video) *video = borrowed(l.video);
        if (audio) *audio = borrowed(l.audio);
        if (frame_rate) *frame_rate = l.frame_rate;
    });
}

sdltx_status sdltx_latents_settings(const sdltx_latents* latents, const char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = existing(latents, "latents").settings.c_str();
    });
}

sdltx_status sdltx_encode_audio(sdltx_pipeline* pipeline, const sdltx_array* samples, int64_t sample_rate,
                                sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Pipeline& core = existing(pipeline, "pipeline").core;
        if (sample_rate < 1 || sample_rate > INT32_MAX)
            refuse("sound", "a sample rate of " + std::to_string(sample_rate) + " Hz is impossible");
        Latents l;
        l.audio = core.encode_audio({array_of(samples, "samples"), static_cast<int>(sample_rate), 0});
        l.frame_rate = default_frame_rate;
        give(latents, std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(l), "{}"}));
    });
}

sdltx_status sdltx_decode_options_init(sdltx_decode_options* options, uint32_t version) {
    return guarded([&] {
        sdltx_decode_options& o = result(options, "decode options");
        o = {};
        check_version(version, SDLTX_DECODE_OPTIONS_VERSION, "decode options");
        o.version = version;
        o.pictures = o.sound = 1;
        const Tiling tiling;
        o.tile_size = tiling.tile_pixels;
        o.tile_overlap = tiling.overlap_pixels;
        o.tile_frames = tiling.tile_frames;
        o.tile_frame_overlap = tiling.overlap_frames;
    });
}

sdltx_status sdltx_encode_video(sdltx_pipeline* pipeline, const sdltx_array* pixels,
                                const sdltx_decode_options* options, sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const sdltx_decode_options o = decode_options(options);
        const Array frames = array_of(pixels, "pixels");
        Watch watch(o.progress, o.progress_payload);
        const Run run(core, watch);
        Latents l;
        l.video = core.encode_video(frames, tiling_of(o), watch.progress());
        l.frame_rate = default_frame_rate;
        give(latents, std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(l), "{}"}));
    });
}

sdltx_status sdltx_upsample(sdltx_pipeline* pipeline, const sdltx_latents* latents, const char* upscaler,
                            sdltx_latents** upsampled) {
    return guarded([&] {
        emptied(upsampled, "result");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const sdltx_latents& given = existing(latents, "latents");
        Latents l = core.upsample(given.values, text(upscaler, "upscaler"), {});
        give(upsampled, std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(l), given.settings}));
    });
}

sdltx_status sdltx_estimate(sdltx_pipeline* pipeline, const sdltx_sample_options* options,
                            const sdltx_decode_options* decode_options_given, char** json) {
    return guarded([&] {
        emptied(json, "json");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const Tiling t = tiling_of(decode_options(decode_options_given));
        Request request = request_of(sample_options(options));
        request.options.tiling = {{t.tile_pixels, t.overlap_pixels, t.tile_frames, t.overlap_frames}};
        const Pipeline::Estimate e = core.estimate(core.resolve(request), request);
        *json =
            copied(Json{{"encode", e.encode}, {"denoise", e.denoise}, {"upscale", e.upscale}, {"decode", e.decode}});
    });
}

sdltx_status sdltx_decode(sdltx_pipeline* pipeline, const sdltx_latents* latents, const sdltx_decode_options* options,
                          sdltx_video** video) {
    return guarded([&] {
        emptied(video, "video");
        Pipeline& core = existing(pipeline, "pipeline").core;
        give(video, decode(core, existing(latents, "latents"), decode_options(options)));
    });
}

void sdltx_video_free(sdltx_video* video) { free_object(video); }

sdltx_status sdltx_video_frames(const sdltx_video* video, sdltx_frames* frames) {
    return guarded([&] {
        sdltx_frames& out = result(frames, "frames");
        const Video& v = existing(video, "video").values;
        out = {v.frames.data.empty() ? nullptr : v.frames.data.data(), v.frames.num_frames, v.frames.height,
               v.frames.width, v.frame_rate};
    });
}

sdltx_status sdltx_video_settings(const sdltx_video* video, const char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = existing(video, "video").settings.c_str();
    });
}

sdltx_status sdltx_video_sound(const sdltx_video* video, sdltx_sound* sound) {
    return guarded([&] {
        sdltx_sound& out = result(sound, "sound");
        const Waveform& w = existing(video, "video").values.audio;
        out = {};
        if (w.samples.empty()) return;
        out = {w.samples.data.data(), w.samples.dim(0), w.samples.dim(1), w.sample_rate, w.clipped};
    });
}

sdltx_status sdltx_generate(sdltx_pipeline* pipeline, const char* prompt, const char* negative_prompt,
                            const sdltx_sample_options* options, const sdltx_decode_options* given,
                            sdltx_latents** latents, sdltx_video** video) {
    return guarded([&] {
        if (latents) *latents = nullptr;
        emptied(video, "video");
        Pipeline& core = existing(pipeline, "pipeline").core;
        text(prompt, "prompt");
        const sdltx_sample_options o = sample_options(options);
        sdltx_decode_options d = decode_options(given);
        if (!d.progress) {
            d.progress = o.progress;
            d.progress_payload = o.progress_payload;
        }
        const Request request = request_of(o);
        const ClipPlan plan = core.resolve(request);
        const SampleSettings& settings = plan.whole;
        tiling_of(d);
        core.require({Part::transformer, Part::text_encoder, Part::text_projection});
        require_decoders(core, d);
        core.check(plan, request);
        if (!d.pictures && !settings.audio) refuse("decode options", "sound alone of a clip without sound");
        const Pipeline::Turn turn(core);  // nobody gets in between
        Watch watch(o.progress, o.progress_payload);
        const Context wanted = encode(core, prompt, watch);
        std::optional<Context> unwanted;
        if (negative_prompt && settings.guidance.needs_negative()) unwanted = encode(core, negative_prompt, watch);
        std::unique_ptr<sdltx_latents> made = sample(core, wanted, unwanted ? &*unwanted : nullptr, o, request, plan);
        const sdltx_latents& denoised = *made;
        if (latents) give(latents, std::move(made));  // before anything else can fail
        give(video, decode(core, denoised, d));
    });
}
