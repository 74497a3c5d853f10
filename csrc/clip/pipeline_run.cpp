// Runs of several requests, part of the model by part.
#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "composing.h"
#include "ltxv/image.h"
#include "pipeline.h"
#include "work.h"

namespace sdltx {

// One run: what has to be done of each job, and who is told.
class Pipeline::Runner {
 public:
    Runner(Pipeline& pipeline, std::vector<Job>& jobs, const RunEvents& events)
        : pipeline_(pipeline), jobs_(jobs), events_(events) {}

    void operator()() {
        for (size_t i = 0; i < jobs_.size(); ++i)
            if (jobs_[i].failure) finish(i);  // it could not be planned
        open_loras();
        each([&](size_t i) { check(i); });
        each([&](size_t i) { plan_work(i, [&](const Step& s, double n) { work_.add(s.kind, n); }); });
        each([&](size_t i) { measure(i); });
        enhance_prompts();
        encode_prompts();
        each([&](size_t i) { settle_length(i); });
        do {  // once, but for films that are extended
            encode_pictures();
            encode_sound();
            denoise();
            decode();
        } while (any([](const Job&) { return true; }));
    }

 private:
    // Calls f(number) for every job that goes on, and ends those that fail.
    template <typename F>
    void each(F&& f) {
        for (size_t i = 0; i < jobs_.size(); ++i) {
            Job& job = jobs_[i];
            if (job.failure || over_.count(i)) continue;
            try {
                f(i);
            } catch (const JobFailed& failed) {
                job.failure = failed.why;
            } catch (const Error& e) {
                if (e.code() == ErrorCode::cancelled || e.code() == ErrorCode::busy) throw;
                job.failure = std::current_exception();
            } catch (const std::exception&) {
                job.failure = std::current_exception();
            }
            if (job.failure) finish(i);
        }
    }
    template <typename F>
    bool any(F&& f) const {
        for (size_t i = 0; i < jobs_.size(); ++i)
            if (!jobs_[i].failure && !over_.count(i) && f(jobs_[i])) return true;
        return false;
    }
    static void go_on(bool again) {
        if (!again) throw Error(ErrorCode::cancelled, "[run] stopped");
    }

    // What is no longer needed goes back; a failed job's work will not be done.
    void finish(size_t i) {
        Job& job = jobs_[i];
        over_.insert(i);
        extensions_.erase(i);
        work_.end();
        if (job.failure) plan_work(i, [&](const Step& s, double n) { work_.drop(s.kind, n); });
        job.context.reset();
        job.negative.reset();
        job.given.clear();
        job.given_sound = {};
        job.film = {};
        if (events_.on_finished) go_on(events_.on_finished(i));
    }

    // Calls add(step, operations) for every piece of a job that is still to be done.
    template <typename Add>
    void plan_work(size_t i, Add&& add) {
        const Job& job = jobs_[i];
        for (const Step& step : job.plan.steps)
            if (needs(job, step) && !done_.count({i, &step}))
                add(step, pipeline_.operations(step) * static_cast<double>(windows_of(job, step)));
    }
    static int64_t windows_of(const Job& job, const Step& step) {
        return job.plan.task == Task::extend && step.kind != StepKind::encode_prompts ? job.plan.extension.windows()
                                                                                      : 1;
    }
    static bool needs(const Job& job, const Step& step) {
        switch (step.kind) {
            case StepKind::encode_prompts:
                return !job.latents && (!job.context || (job.plan.guided() && !job.negative));
            case StepKind::decode_pictures:
                return job.pictures && !(job.latents && job.latents->video.empty());
            case StepKind::decode_sound:
                return job.sound && job.plan.whole.audio;
            default:
                return !job.latents;
        }
    }
    // Whether all prompts of a job were encoded before.
    bool known(const Job& job) const {
        const std::string& own = pipeline_.info_.negative_prompt;
        return job.context && pipeline_.default_negative_ && job.request.options.negative_prompt.value_or(own) == own;
    }
    void begin(size_t i, const Step& step) {
        done_.insert({i, &step});
        work_.begin(step.kind, pipeline_.operations(step));
        tell();
    }
    void tell() { pipeline_.tell(work_.whole()); }
    Progress progress() {
        return [this](const ProgressEvent& e) {
            // What a model writes is as long as it likes.
            if (const std::string phase = e.phase; phase != "load" && phase != "enhance")
                work_.advance(e.done, e.total);
            tell();
            return !events_.progress || events_.progress(e);
        };
    }
    static const Step* step_of(const Job& job, StepKind kind) { return job.plan.of(kind).front(); }
    // All of them, as jobs take turns.
    void open_loras() {
        std::vector<LoraFile> wanted;
        for (const Job& job : jobs_)
            for (const Step& step : job.plan.steps) wanted.insert(wanted.end(), step.loras.begin(), step.loras.end());
        pipeline_.keep_loras(wanted);
    }

    // What is wrong should not show after hours.
    void check(size_t i) {
        Job& job = jobs_[i];
        if (job.plan.task == Task::extend) job.latents.reset();  // those of a window are not the film's
        pipeline_.check_inputs(job.plan, job.request);
        std::vector<Part> parts;
        if (!job.latents && !job.context) parts = {Part::text_encoder, Part::text_projection};
        if (!job.latents) parts.push_back(Part::transformer);
        if (job.pictures && job.plan.has(StepKind::decode_pictures)) parts.push_back(Part::video_decoder);
        pipeline_.require(parts);
        if (job.latents)
            pipeline_.check_latents(job.pictures ? &job.latents->video.shape : nullptr,
                                    job.latents->audio.empty() ? nullptr : &job.latents->audio.shape);
        if (!job.latents && job.plan.guided() && !job.negative) pipeline_.require_negative();
    }

    // What cannot fit is told before anything is computed.
    void measure(size_t i) {
        Job& job = jobs_[i];
        const auto wanted = [&](const Step& step) {
            if (job.plan.length_by_prompt && step.kind != StepKind::encode_prompts) return false;
            return needs(job, step) && !(step.kind == StepKind::encode_prompts && known(job));
        };
        std::vector<MemoryUse> uses =
            pipeline_.measure(job.plan, job.request, job.latents ? &*job.latents : nullptr, wanted);
        for (size_t s = 0; s < uses.size(); ++s) {
            Step& step = job.plan.steps[s];
            if (!wanted(step)) continue;
            const Fit fit = pipeline_.fit(job.plan, step, job.request, shape_of(job, step), uses[s]);
            if (!fit.misfit.empty() && shorten_windows(i)) return measure(i);
            if (!fit.misfit.empty()) throw Error(ErrorCode::out_of_memory, fit.misfit);
            if (fit.tiles) tiles_[i] = *fit.tiles;
            uses_[step.kind].also(uses[s]);
        }
        pipeline_.workspace_->release();
    }
    // Windows of an extension are as long as there is memory for, unless somebody says how long. False: it cannot be.
    bool shorten_windows(size_t i) {
        Job& job = jobs_[i];
        const ExtensionPlan& e = job.plan.extension;
        ClipOptions& o = job.request.options;
        const int64_t shorter = e.seen() + e.made() / 2;
        if (job.plan.task != Task::extend || (o.num_frames && !shortened_.count(i)) || shorter <= e.seen())
            return false;
        const int64_t frames = (shorter + 6) / 8 * 8 + 1;
        if (frames >= e.window) return false;
        plan_work(i, [&](const Step& s, double n) { work_.drop(s.kind, n); });
        shortened_.insert(i);
        o.seed = job.plan.whole.seed;
        o.num_frames = frames;
        job.plan = pipeline_.resolve(job.request);
        plan_work(i, [&](const Step& s, double n) { work_.add(s.kind, n); });
        log(20, "[extend] windows of " + std::to_string(frames) + " frames, as there is no room for longer ones");
        return true;
    }
    static std::array<int64_t, 3> shape_of(const Job& job, const Step& step) {
        if (job.latents) return Pipeline::shape_of(*job.latents);
        const Geometry& g = step.settings.latent;
        return {g.frames, g.height, g.width};
    }

    // Pictures of a film that are told as they are.
    void show_film(size_t i) {
        constexpr int64_t at_once = 8;
        const Job& job = jobs_[i];
        const int64_t count = job.plan.result_frames;
        for (int64_t f = 0; f < count && events_.on_frames; f += at_once)
            go_on(events_.on_frames(i, pixels_of(job.film, f, std::min(at_once, count - f))));
    }
    // Made pictures, with those of a film where it shows, as far as the result goes.
    VideoDecoder::Sink mixing(size_t i, bool& told) {
        return [this, i, &told, done = int64_t{0},
                mixture = shows_film(jobs_[i]) ? std::optional(mixture_of(jobs_[i]))
                                               : std::nullopt](const Array& pixels) mutable {
            const Job& job = jobs_[i];
            const int64_t first = done,
                          left = job.request.film.empty() ? pixels.dim(0) : job.plan.result_frames - first;
            done += pixels.dim(0);
            told = true;
            if (!events_.on_frames || left <= 0) return;
            if (!mixture && left >= pixels.dim(0)) return go_on(events_.on_frames(i, pixels));
            Array some = pixels;
            some.shape[0] = std::min(left, pixels.dim(0));
            some.data.resize(static_cast<size_t>(some.dim(0) * some.dim(1) * some.dim(2) * some.dim(3)));
            if (mixture) mixture->mix(some, job.film, first);
            go_on(events_.on_frames(i, some));
        };
    }
    // Pictures in tiles that fit; when they do not all the same, as others have taken the memory, in smaller ones.
    void decode_pictures(size_t i) {
        Job& job = jobs_[i];
        bool told = false;
        std::vector<Tiling> tries{tiles_.count(i) ? tiles_[i] : tiling_of(job.request.options)};
        if (pipeline_.may_choose_tiles(job.request))
            for (const Tiling& tiles : smaller_tilings())
                if (tiles.tile_pixels < tries.front().tile_pixels) tries.push_back(tiles);
        for (size_t number = 0;; ++number) {
            const Tiling& tiles = tries[number];
            if ((number || tiles_.count(i)) && events_.on_tiles) go_on(events_.on_tiles(i, tiles));
            try {
                pipeline_.decode(job.latents->video, tiles, mixing(i, told), progress());
                return;
            } catch (const Error& e) {
                if (e.code() != ErrorCode::out_of_memory || told || number + 1 == tries.size()) throw;
                log(30, std::string(e.what()) + "; trying smaller tiles");
            }
        }
    }

    // What a prompt asks for is known once it is encoded; then what cannot be is told as at the start.
    void settle_length(size_t i) {
        Job& job = jobs_[i];
        if (job.latents || !job.plan.length_by_prompt) return;
        plan_work(i, [&](const Step& s, double n) { work_.drop(s.kind, n); });
        const bool encoded = done_.count({i, &job.plan.steps.front()});
        done_.erase(done_.lower_bound({i, nullptr}), done_.lower_bound({i + 1, nullptr}));
        job.plan = pipeline_.settle_length(job.plan, job.request, *job.context);
        if (encoded) done_.insert({i, &job.plan.steps.front()});
        plan_work(i, [&](const Step& s, double n) { work_.add(s.kind, n); });
        check(i);
        measure(i);
    }

    void enhance_prompts() {
        const auto wanted = [&](const Job& job) {
            return !job.latents && !job.context && pipeline_.writes(job.request);
        };
        if (!any(wanted)) return;
        const WritingHold held(pipeline_, progress(), uses_[StepKind::encode_prompts]);
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (!wanted(job)) return;
            ClipOptions& o = job.request.options;
            if (!o.enhanced_from) o.enhanced_from = o.prompt.value_or("");
            o.prompt = pipeline_.enhance(*o.enhanced_from, o.enhance_system.value_or(""),
                                         static_cast<uint64_t>(job.plan.whole.seed), progress());
            job.plan.enhanced = true;
            o.enhance_system.reset();
            o.enhance.reset();  // it is done
        });
    }

    void encode_prompts() {
        const auto wanted = [](const Job& job) { return needs(job, job.plan.steps.front()); };
        if (!any(wanted)) return;
        std::optional<Hold> held;
        if (any([&](const Job& job) { return wanted(job) && !known(job); }))
            held.emplace(pipeline_, pipeline_.encoding(), progress(), uses_[StepKind::encode_prompts]);
        std::map<std::string, Context> known;  // several clips of one prompt
        const auto encoded = [&](const std::string& prompt) {
            // That of the model stays for later runs.
            if (prompt == pipeline_.info_.negative_prompt) {
                if (!pipeline_.default_negative_) pipeline_.default_negative_ = pipeline_.encode(prompt, progress());
                return *pipeline_.default_negative_;
            }
            const auto there = known.find(prompt);
            return there != known.end() ? there->second
                                        : known.emplace(prompt, pipeline_.encode(prompt, progress())).first->second;
        };
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (!wanted(job)) return;
            begin(i, job.plan.steps.front());
            const ClipOptions& o = job.request.options;
            if (!job.context) job.context = encoded(o.prompt.value_or(""));
            if (job.plan.guided() && !job.negative)
                job.negative = encoded(o.negative_prompt.value_or(pipeline_.info_.negative_prompt));
            if (events_.on_encoded) go_on(events_.on_encoded(i));
        });
        work_.end();
    }

    void encode_pictures() {
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (extensions_.count(i)) return;
            if (!job.request.film.empty() && job.plan.task != Task::dub)
                job.film = fitted(std::move(job.request.film.frames), job.plan.whole.height, job.plan.whole.width);
        });
        const auto wanted = [](const Job& job) { return !job.latents && job.plan.has(StepKind::encode_pictures); };
        if (!any(wanted)) return;
        const Hold held(pipeline_, {&pipeline_.networks_->video_encoder->weights()}, progress(),
                        uses_[StepKind::encode_pictures]);
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (!wanted(job)) return;
            const auto steps = job.plan.of(StepKind::encode_pictures);
            const auto stages = job.plan.of(StepKind::denoise);
            for (size_t stage = 0; stage < steps.size(); ++stage) {
                begin(i, *steps[stage]);
                Job::Given& given = job.given.emplace_back();
                const SampleSettings& settings = stages[stage]->settings;
                given.images = pipeline_.encoded(pictures_of_stage(job.plan, *stages[stage], job.request.images),
                                                 settings, progress());
                if (job.plan.task == Task::extend) {
                    see_end(i, given);
                    continue;
                }
                if (!job.film.data.empty())
                    given.film = pipeline_.encode_video(footage_of_film(job, settings), Tiling{}, progress());
                if (const Geometry& g = settings.latent; job.request.mask.num_frames)
                    given.mask = bright_cells(job.request.mask, {g.frames, g.height, g.width});
                for (const Request::Reference& reference : references_of(job.plan, *stages[stage], job.request))
                    given.references.push_back(encoded_reference(job, *stages[stage], reference));
            }
            for (Condition& c : job.request.images) c.image = {};
            for (Request::Reference& reference : job.request.references) {
                reference.film.frames.data = {};
                reference.attention.data = {};
            }
            if (job.plan.task == Task::dub) job.request.film.frames.data = {};
        });
        work_.end();
    }

    // What the next window of an extension begins or ends with.
    void see_end(size_t i, Job::Given& given) {
        Job& job = jobs_[i];
        const SampleSettings& s = job.plan.whole;
        const auto found = extensions_.find(i);
        if (found == extensions_.end()) {
            const Waveform& sound = job.request.film.sound;
            const double seconds = static_cast<double>(job.film.num_frames) / s.frame_rate;
            const bool heard = s.audio && !sound.samples.empty();
            extensions_.emplace(
                i, Extension(job.plan.extension, std::move(job.film), heard ? stereo(sound, seconds) : Waveform{},
                             s.frame_rate, s.latent.audio_frames));
            job.film = {};
        }
        const Extension& extension = extensions_.at(i);
        const Frames seen = extension.pictures();
        given.kept = {extension.kept(pipeline_.encode_video(
            footage_of(seen.data.data(), seen.num_frames, seen.height, seen.width), Tiling{}, progress()))};
    }
    // A window of an extension, decoded; the whole film, once it is there.
    void extend(size_t i) {
        Job& job = jobs_[i];
        Extension& extension = extensions_.at(i);
        const bool sounds = job.plan.whole.audio && pipeline_.networks_->audio_decoder && pipeline_.networks_->vocoder;
        Waveform made;
        if (sounds) {
            begin(i, *step_of(job, StepKind::decode_sound));
            made = pipeline_.decode_audio(job.latents->audio, sound_piece_seconds, progress());
        }
        begin(i, *step_of(job, StepKind::decode_pictures));
        Frames window{0, extension.film().height, extension.film().width, {}};
        pipeline_.decode(
            job.latents->video, tiles_.count(i) ? tiles_[i] : tiling_of(job.request.options),
            [&](const Array& pixels) {
                const Frames some = to_bytes(pixels);
                window.data.insert(window.data.end(), some.data.begin(), some.data.end());
                window.num_frames += some.num_frames;
            },
            progress());
        extension.add(window, made);
        if (!extension.done()) {
            job.latents.reset();
            job.given.clear();
            for (Step& step : job.plan.steps) ++step.settings.seed;  // other noise for each window
            return;
        }
        const auto sound = [&] {
            const Waveform whole = extension.whole_sound();
            if (job.sound && events_.on_sound) go_on(events_.on_sound(i, whole.samples.empty() ? nullptr : &whole));
        };
        if (job.sound_first) sound();
        job.film = extension.film();
        if (job.pictures) show_film(i);
        if (!job.sound_first) sound();
        if (events_.on_decoded) go_on(events_.on_decoded(i));
        finish(i);
    }

    ReferenceFilm encoded_reference(const Job& job, const Step& stage, const Request::Reference& reference) {
        const ReferenceShape shape = shape_of_reference(job.plan, stage, reference);
        const Frames pictures = pictures_of_reference(job, shape, reference);
        const Footage own = footage_of(pictures.data.data(), pictures.num_frames, shape.height, shape.width);
        const int64_t last = pictures.num_frames - 1;
        const ReferenceFactors& factors = job.plan.factors;
        const SampleSettings& s = stage.settings;
        return {pipeline_.encode_video({static_cast<int64_t>(shape.frames.size()), shape.height, shape.width,
                                        [&](int64_t f, float* rgb) { own.read(std::min(f, last), rgb); }},
                                       Tiling{}, progress()),
                factors.downscale, factors.temporal, reference.strength,
                attention_of(reference, shape.frames, job.request.options.reference_attention.value_or(1), s.width,
                             s.height, shape.cells)};
    }

    void encode_sound() {
        const auto wanted = [](const Job& job) { return !job.latents && job.plan.has(StepKind::encode_sound); };
        if (!any(wanted)) return;
        const Hold held(pipeline_, {&pipeline_.networks_->audio_encoder->weights()}, progress(),
                        uses_[StepKind::encode_sound]);
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (!wanted(job)) return;
            begin(i, *step_of(job, StepKind::encode_sound));
            const Request& r = job.request;
            const SampleSettings& s = job.plan.whole;
            const Waveform& given = job.plan.task == Task::sound ? r.sound : r.film.sound;
            if (job.plan.task == Task::extend) {
                const Extension& extension = extensions_.at(i);
                const Waveform heard = extension.sound();
                if (!heard.samples.empty())
                    job.given.front().kept_sound = {extension.kept_sound(pipeline_.encode_audio(heard))};
                return;
            }
            if (job.plan.task == Task::dub) {  // all of it
                job.given_sound = pipeline_.encode_audio(
                    stereo(given, static_cast<double>(given.samples.dim(1)) / given.sample_rate));
                return;
            }
            job.given_sound =
                with_frames(pipeline_.encode_audio(stereo(given, static_cast<double>(s.num_frames) / s.frame_rate)),
                            s.latent.audio_frames);
        });
        work_.end();
    }

    void denoise() {
        const auto wanted = [](const Job& job) { return !job.latents; };
        if (!any(wanted)) return;
        const auto of_any = [&](bool SampleSettings::* stream) {
            return any([&](const Job& job) { return wanted(job) && job.plan.whole.*stream; });
        };
        pipeline_.networks_->transformer->use_streams(of_any(&SampleSettings::video), of_any(&SampleSettings::audio));
        const Hold held(pipeline_, {&pipeline_.networks_->transformer->weights()}, progress(),
                        uses_[StepKind::denoise]);
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (!wanted(job)) return;
            const OnStep on_step = [&](int64_t done, int64_t steps, const Latents& estimate) {
                return !events_.on_step || events_.on_step(i, done, steps, estimate);
            };
            job.latents = pipeline_.denoise(*job.context, job.negative ? &*job.negative : nullptr, job, progress(),
                                            on_step, [&](const Step& step) { begin(i, step); });
            if (job.plan.task == Task::extend && !extensions_.at(i).last_window()) return;
            job.context.reset();
            job.negative.reset();
            if (events_.on_denoised) go_on(events_.on_denoised(i));
        });
        work_.end();
    }

    void decode() {
        Networks& n = *pipeline_.networks_;
        const bool sounds = n.audio_decoder && n.vocoder;
        const auto has_sound = [&](const Job& job) {
            return job.sound && sounds && !job.latents->audio.empty() && job.plan.has(StepKind::decode_sound);
        };
        std::vector<Weights*> of_sound, of_pictures, all;
        if (any(has_sound)) of_sound = {&n.audio_decoder->weights(), &n.vocoder->weights()};
        const auto has_pictures = [](const Job& job) {
            return needs(job, {StepKind::decode_pictures, {}}) && job.plan.has(StepKind::decode_pictures);
        };
        if (any(has_pictures)) of_pictures = {&n.video_decoder->weights()};
        MemoryUse use = uses_[StepKind::decode_pictures];
        use.also(uses_[StepKind::decode_sound]);
        // Where memory is planned each is held in its turn: what it leaves stays if there is room.
        const bool planned = pipeline_.backend_->offload() == Offload::automatic;
        all = of_sound;
        all.insert(all.end(), of_pictures.begin(), of_pictures.end());
        std::optional<Hold> held;
        if (!planned) held.emplace(pipeline_, all, progress(), use);
        each([&](size_t i) {
            Job& job = jobs_[i];
            if (job.plan.task == Task::extend) return extend(i);
            const auto sound = [&] {
                std::optional<Waveform> wave;
                if (has_sound(job)) {
                    begin(i, *step_of(job, StepKind::decode_sound));
                    if (planned) held.emplace(pipeline_, of_sound, progress(), uses_[StepKind::decode_sound]);
                    wave = pipeline_.decode_audio(job.latents->audio, sound_piece_seconds, progress());
                    if (planned) held.reset();
                }
                if (job.sound && gives_sound(job)) wave = heard(job, wave ? &*wave : nullptr);
                if (events_.on_sound) go_on(events_.on_sound(i, wave ? &*wave : nullptr));
            };
            if (job.sound_first) sound();
            if (job.pictures && !job.film.data.empty() && !job.plan.has(StepKind::decode_pictures)) show_film(i);
            if (has_pictures(job)) {
                begin(i, *step_of(job, StepKind::decode_pictures));
                if (planned) held.emplace(pipeline_, of_pictures, progress(), uses_[StepKind::decode_pictures]);
                decode_pictures(i);
                if (planned) held.reset();
            }
            if (!job.sound_first) sound();
            if (events_.on_decoded) go_on(events_.on_decoded(i));
            finish(i);
        });
        work_.end();
        tell();
    }

    Pipeline& pipeline_;
    std::vector<Job>& jobs_;
    const RunEvents& events_;
    std::set<std::pair<size_t, const Step*>> done_;  // or begun
    std::map<StepKind, MemoryUse> uses_;             // the most of all jobs
    std::set<size_t> shortened_;                     // whose windows are shorter than usual
    std::set<size_t> over_;                          // jobs that are finished
    std::map<size_t, Extension> extensions_;         // that are on their way
    std::map<size_t, Tiling> tiles_;                 // of jobs that cannot have those of the reference
    Work work_;
};

void Pipeline::plan(Job& job) const {
    files();  // throws
    try {
        job.plan = resolve(job.request);
    } catch (const std::exception&) {
        job.failure = std::current_exception();
    }
}

void Pipeline::run(std::vector<Job>& jobs, const RunEvents& events) {
    const Turn turn(*this);
    tell({});
    Runner(*this, jobs, events)();
}

Latents Pipeline::sample(const Context& context, const Context* negative, const ClipPlan& plan, const Request& request,
                         const Noise& second_noise, const Progress& progress, const OnStep& on_step) {
    const Turn turn(*this);
    std::vector<Job> jobs(1);
    Job& job = jobs.front();
    job.request = request;
    job.plan = plan;
    job.context = context;
    if (negative) job.negative = *negative;
    job.second_noise = second_noise;
    job.pictures = job.sound = false;
    RunEvents events;
    events.progress = progress;
    if (on_step)
        events.on_step = [&](size_t, int64_t done, int64_t steps, const Latents& estimate) {
            return on_step(done, steps, estimate);
        };
    Runner(*this, jobs, events)();
    if (job.failure) std::rethrow_exception(job.failure);
    return std::move(*job.latents);
}

void Pipeline::tell(const WholeProgress& whole) {
    std::lock_guard<std::mutex> lock(turn_mutex_);
    whole_ = whole;
}

WholeProgress Pipeline::whole_progress() const {
    std::lock_guard<std::mutex> lock(turn_mutex_);
    return whole_;
}

}  // namespace sdltx
