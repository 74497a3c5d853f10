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

// NULL: all that is default.
Request request_of(const sdltx_request* given) { return given ? existing(given, "request").values : Request{}; }

void check_what(int32_t what) {
    if (what < 1 || what > (SDLTX_PICTURES | SDLTX_SOUND))
        refuse("what", "must be SDLTX_PICTURES, SDLTX_SOUND or both");
}

// --- runs ---

Context encode(Pipeline& pipeline, const char* prompt, Watch& watch) {
    const Run run(pipeline, watch);
    return pipeline.encode(prompt, watch.progress());
}

Pipeline::OnStep on_step_of(const sdltx_callbacks& c) {
    if (!c.on_step) return {};
    return [&c](int64_t done, int64_t steps, const Latents& estimate) {
        const sdltx_latents shown{estimate, "{}"};
        const Lent lent(shown);
        return c.on_step(done, steps, &shown, c.payload) == 0;
    };
}

// What latents tell of how they were made.
std::string told(const Request& request, const ClipPlan& plan) {
    Json out = to_json(plan);
    const Json asked = to_json(request.options);
    for (const Option& option : all_options())
        if (const std::string group = option.group;
            option.remembered && (group == "material" || group == "enhancement"))
            if (asked.contains(option.name)) out[option.name] = asked[option.name];
    if (plan.enhanced) out["prompt"] = request.options.prompt.value_or("");
    if (request.options.seed.value_or(-1) < 0 && !plan.draws_noise(request)) out["seed"] = nullptr;
    return spelled(out);
}

// Clips that are made or decoded, as the caller gets them.
struct Made {
    std::unique_ptr<sdltx_latents> latents;
    std::unique_ptr<sdltx_video> video;
};

// Adds pictures to a clip, or hands them to the caller.
bool take_frames(const Array& pixels, const sdltx_callbacks& c, Video& to) {
    const Frames f = to_bytes(pixels);
    const int64_t first = to.frames.num_frames;
    to.frames.num_frames += f.num_frames;
    to.frames.height = f.height;
    to.frames.width = f.width;
    if (c.on_frames) return c.on_frames(f.data.data(), first, f.num_frames, f.height, f.width, c.payload) == 0;
    to.frames.data.insert(to.frames.data.end(), f.data.begin(), f.data.end());
    return true;
}

std::vector<Made> run(Pipeline& pipeline, std::vector<Job>& jobs, const std::vector<std::string>& settings,
                      const sdltx_callbacks& c) {
    std::vector<Made> made(jobs.size());
    for (size_t i = 0; i < jobs.size(); ++i) made[i].video.reset(new sdltx_video{{}, settings[i]});
    Watch watch(c.progress, c.payload);
    const Pipeline::OnStep on_step = on_step_of(c);
    RunEvents events;
    events.progress = watch.progress();
    if (on_step)
        events.on_step = [&](size_t, int64_t done, int64_t steps, const Latents& estimate) {
            return on_step(done, steps, estimate);
        };
    events.on_denoised = [&](size_t i) {
        std::string& own = made[i].video->settings;
        if (jobs[i].plan.enhanced) own = told(jobs[i].request, jobs[i].plan);
        made[i].latents.reset(new sdltx_latents{*jobs[i].latents, own});
        return true;
    };
    events.on_sound = [&](size_t i, const Waveform* sound) {
        Video& video = made[i].video->values;
        video.frame_rate = jobs[i].latents->frame_rate;
        if (sound) video.audio = *sound;
        return true;
    };
    events.on_frames = [&](size_t i, const Array& pixels) { return take_frames(pixels, c, made[i].video->values); };
    const Run run(pipeline, watch);
    try {
        pipeline.run(jobs, events);
    } catch (...) {
        // What was denoised is the caller's whatever comes.
        for (Job& job : jobs)
            if (!job.failure) job.failure = std::current_exception();
    }
    return made;
}

Job job_of(const Request& request, int32_t what) {
    Job job{request, {}, {}, {}, {}};
    job.pictures = what & SDLTX_PICTURES;
    job.sound = what & SDLTX_SOUND;
    return job;
}

void check_whats_there(const Pipeline& pipeline, int32_t what) {
    if (what & SDLTX_PICTURES) pipeline.require({Part::video_decoder});
    if (!(what & SDLTX_PICTURES)) pipeline.require({Part::audio_decoder, Part::vocoder});
}

std::unique_ptr<sdltx_video> decode(Pipeline& pipeline, const sdltx_latents& given, const Request& request,
                                    int32_t what, const sdltx_callbacks& c) {
    const Latents& latents = given.values;
    const bool pictures = what & SDLTX_PICTURES, sound = what & SDLTX_SOUND;
    const Tiling tiling = tiling_of(request.options);
    check_whats_there(pipeline, what);
    if (!pictures && latents.audio.empty()) refuse("decode", "the latents have no sound");
    if (pictures && latents.video.empty()) refuse("decode", "the latents have no pictures; ask for SDLTX_SOUND alone");
    Watch watch(c.progress, c.payload);
    const Run run(pipeline, watch);
    pipeline.check_latents(latents.video.empty() ? nullptr : &latents.video.shape,
                           latents.audio.empty() ? nullptr : &latents.audio.shape);
    std::unique_ptr<sdltx_video> out(new sdltx_video{{}, given.settings});
    out->values.frame_rate = latents.frame_rate;
    const auto take = [&](const Array& pixels) {
        if (!take_frames(pixels, c, out->values)) throw Error(ErrorCode::cancelled, "[decode] stopped");
    };
    if (pictures) pipeline.decode(latents.video, tiling, take, watch.progress());
    const bool sounds = pipeline.info().has(Part::audio_decoder) && pipeline.info().has(Part::vocoder);
    if (sound && sounds && !latents.audio.empty())
        out->values.audio = pipeline.decode_audio(latents.audio, sound_piece_seconds, watch.progress());
    return out;
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
            {"image_crf", info.image_crf},
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

// Of versions 1 and 2.
static constexpr size_t load_options_sizes[] = {offsetof(sdltx_load_options, max_memory), sizeof(sdltx_load_options)};

sdltx_status sdltx_load_options_init(sdltx_load_options* options, uint32_t version) {
    return guarded([&] {
        check_version(version, SDLTX_LOAD_OPTIONS_VERSION, "load options");
        sdltx_load_options defaults{};
        defaults.version = version;
        defaults.offload = SDLTX_OFFLOAD_AUTO;
        // Who knows version 1 has no more room.
        std::memcpy(&result(options, "load options"), &defaults, load_options_sizes[version - 1]);
    });
}

sdltx_status sdltx_load(const char* const* paths, size_t num_paths, const sdltx_load_options* given,
                        sdltx_pipeline** pipeline) {
    return guarded([&] {
        emptied(pipeline, "pipeline");
        sdltx_load_options o;
        sdltx_load_options_init(&o, SDLTX_LOAD_OPTIONS_VERSION);
        take_options(o, given, "load options", load_options_sizes);
        if (o.precision != SDLTX_PRECISION_AUTO && o.precision != SDLTX_PRECISION_F32)
            refuse("load options", "precision " + std::to_string(o.precision) + " is unknown");
        if (o.offload < SDLTX_OFFLOAD_NONE || o.offload > SDLTX_OFFLOAD_AUTO)
            refuse("load options", "offload " + std::to_string(o.offload) + " is unknown");
        const std::vector<std::string> files = model_paths(paths, num_paths);
        Watch watch(o.progress, o.progress_payload);
        const LoadOptions options{o.device ? o.device : "cpu",
                                  o.precision == SDLTX_PRECISION_F32,
                                  o.threads,
                                  static_cast<Offload>(o.offload),
                                  watch.progress(),
                                  {o.max_memory, o.max_vram}};
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

sdltx_status sdltx_enhance(sdltx_pipeline* pipeline, const sdltx_request* request, sdltx_progress_fn progress,
                           void* payload, char** prompt) {
    return guarded([&] {
        emptied(prompt, "prompt");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const ClipOptions o = request_of(request).options;
        Watch watch(progress, payload);
        const Run run(core, watch);
        const auto seed = static_cast<uint64_t>(std::max<int64_t>(0, o.seed.value_or(0)));
        *prompt = copied(core.enhance(o.prompt.value_or(""), o.enhance_system.value_or(""), seed, watch.progress()));
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

sdltx_status sdltx_duration(sdltx_pipeline* pipeline, const sdltx_context* context, double* seconds) {
    return guarded([&] {
        result(seconds, "seconds") = 0;
        *seconds = existing(pipeline, "pipeline").core.duration(existing(context, "context").values);
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

sdltx_status sdltx_resolve(sdltx_pipeline* pipeline, const sdltx_request* request, char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = copied(to_json(existing(pipeline, "pipeline").core.resolve(request_of(request))));
    });
}

sdltx_status sdltx_doubts(sdltx_pipeline* pipeline, const sdltx_request* request, char** json) {
    return guarded([&] {
        emptied(json, "json");
        const Pipeline& core = existing(pipeline, "pipeline").core;
        *json = copied(Json(core.doubts(core.resolve(request_of(request)))));
    });
}

sdltx_status sdltx_sample(sdltx_pipeline* pipeline, const sdltx_context* context, const sdltx_context* negative,
                          const sdltx_request* request, const sdltx_callbacks* callbacks, sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const Context& wanted = existing(context, "context").values;
        const Context* unwanted = negative ? &existing(negative, "negative").values : nullptr;
        const sdltx_callbacks c = callbacks_of(callbacks);
        Request asked = request_of(request);
        ClipPlan plan = core.resolve(asked);
        Watch watch(c.progress, c.payload);
        const Run run(core, watch);
        plan = core.settle_length(plan, asked, wanted);
        std::string settings = told(asked, plan);  // what cannot be written should not cost a run
        Latents made = core.sample(wanted, unwanted, plan, asked, {}, watch.progress(), on_step_of(c));
        give(latents, std::unique_ptr<sdltx_latents>(new sdltx_latents{std::move(made), std::move(settings)}));
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

sdltx_status sdltx_encode_video(sdltx_pipeline* pipeline, const sdltx_array* pixels, const sdltx_request* request,
                                const sdltx_callbacks* callbacks, sdltx_latents** latents) {
    return guarded([&] {
        emptied(latents, "latents");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const sdltx_callbacks c = callbacks_of(callbacks);
        const Array frames = array_of(pixels, "pixels");
        Watch watch(c.progress, c.payload);
        const Run run(core, watch);
        Latents l;
        l.video = core.encode_video(footage_of(frames), tiling_of(request_of(request).options), watch.progress());
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

sdltx_status sdltx_estimate(sdltx_pipeline* pipeline, const sdltx_request* request, char** json) {
    return guarded([&] {
        emptied(json, "json");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const Request asked = request_of(request);
        *json = copied(to_json(core.estimate(core.resolve(asked), asked)));
    });
}

sdltx_status sdltx_decode(sdltx_pipeline* pipeline, const sdltx_latents* latents, const sdltx_request* request,
                          int32_t what, const sdltx_callbacks* callbacks, sdltx_video** video) {
    return guarded([&] {
        emptied(video, "video");
        Pipeline& core = existing(pipeline, "pipeline").core;
        const sdltx_latents& given = existing(latents, "latents");
        check_what(what);
        give(video, decode(core, given, request_of(request), what, callbacks_of(callbacks)));
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

sdltx_status sdltx_generate(sdltx_pipeline* pipeline, const sdltx_request* request, int32_t what,
                            const sdltx_callbacks* callbacks, sdltx_latents** latents, sdltx_video** video) {
    return guarded([&] {
        if (latents) *latents = nullptr;
        emptied(video, "video");
        Pipeline& core = existing(pipeline, "pipeline").core;
        check_what(what);
        std::vector<Job> jobs{job_of(existing(request, "request").values, what)};
        jobs[0].plan = core.resolve(jobs[0].request);
        check_whats_there(core, what);
        if (!(what & SDLTX_PICTURES) && !jobs[0].plan.whole.audio)
            refuse("what", "sound alone of a clip without sound");
        std::vector<Made> made = run(core, jobs, {told(jobs[0].request, jobs[0].plan)}, callbacks_of(callbacks));
        if (latents && made[0].latents) give(latents, std::move(made[0].latents));
        if (jobs[0].failure) std::rethrow_exception(jobs[0].failure);
        give(video, std::move(made[0].video));
    });
}

sdltx_status sdltx_generate_all(sdltx_pipeline* pipeline, const sdltx_request* const* requests, size_t count,
                                int32_t what, const sdltx_callbacks* callbacks, sdltx_video** videos,
                                sdltx_status* statuses) {
    return guarded([&] {
        Pipeline& core = existing(pipeline, "pipeline").core;
        if (count && (!requests || !videos)) refuse(requests ? "videos" : "requests", "is NULL");
        for (size_t i = 0; i < count; ++i) videos[i] = nullptr;
        check_what(what);
        check_whats_there(core, what);
        std::vector<Job> jobs;
        std::vector<std::string> settings;
        for (size_t i = 0; i < count; ++i) {
            Job& job = jobs.emplace_back(job_of(existing(requests[i], "request").values, what));
            core.plan(job);
            settings.push_back(job.failure ? "{}" : told(job.request, job.plan));
        }
        std::vector<Made> made = run(core, jobs, settings, callbacks_of(callbacks));
        std::exception_ptr first;
        for (size_t i = 0; i < count; ++i) {
            sdltx_status status = SDLTX_OK;
            if (jobs[i].failure)
                status = guarded([&] { std::rethrow_exception(jobs[i].failure); });
            else
                give(videos + i, std::move(made[i].video));
            if (statuses) statuses[i] = status;
            if (!first) first = jobs[i].failure;
        }
        if (first) std::rethrow_exception(first);
    });
}

sdltx_status sdltx_whole_progress(sdltx_pipeline* pipeline, double* fraction, double* seconds_left) {
    return guarded([&] {
        const WholeProgress whole = existing(pipeline, "pipeline").core.whole_progress();
        result(fraction, "fraction") = whole.fraction;
        if (seconds_left) *seconds_left = whole.seconds_left;
    });
}
