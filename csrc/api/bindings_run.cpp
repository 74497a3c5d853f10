// Runs of several requests, for Python: the jobs, and what is told of them by their numbers.
#include "bindings.h"
#include "bindings_guard.h"
#include "ltxv/video_vae.h"

namespace py = pybind11;
using namespace py::literals;

namespace sdltx {

namespace {

py::tuple arrays_of(const Array& video, const Array& audio) {
    return py::make_tuple(to_numpy(video), audio.empty() ? py::object(py::none()) : py::object(to_numpy(audio)));
}

// Without samples: their number alone, for what is planned.
Waveform waveform_of(const py::dict& given) {
    const auto length = given["length"].cast<int64_t>();
    Waveform w{{{2, length}, {0.0f}}, given["rate"].cast<int>()};
    if (!given["samples"].is_none()) w.samples = to_array(given["samples"].cast<FloatArray>());
    return w;
}

// Tells Python of a job. Exceptions of this library and of files end that job, others the run.
template <typename F>
bool told(Guard& guard, F&& f) {
    const WithGil gil;
    std::exception_ptr failed;
    const bool go_on = guard.call([&] {
        try {
            f();
        } catch (py::error_already_set& e) {
            const py::module_ core = py::module_::import("sdltx._core");
            const bool ours = e.matches(core.attr("SdltxError")) || e.matches(PyExc_OSError);
            if (!ours || e.matches(core.attr("Cancelled"))) throw;
            failed = std::current_exception();
        }
    });
    if (failed) throw JobFailed{failed};
    return go_on;
}

// The jobs are used up, as what they hold may be large.
void run(Pipeline& p, const std::vector<Job*>& given, std::optional<py::function> progress,
         const std::map<std::string, py::function>& on) {
    Guard guard(std::move(progress));
    std::vector<Job> jobs;
    for (Job* job : given) {
        Job& here = jobs.emplace_back(std::move(*job));
        guard.run(nullptr, [&] { p.plan(here); });
    }
    const auto handler = [&](const char* name) {
        const auto found = on.find(name);
        return found == on.end() ? py::function() : found->second;
    };
    const py::function on_encoded = handler("encoded"), on_step = handler("step"), on_denoised = handler("denoised"),
                       on_sound = handler("sound"), on_frames = handler("frames"), on_tiles = handler("tiles"),
                       on_decoded = handler("decoded"), on_finished = handler("finished");
    RunEvents events;
    events.progress = guard.progress();
    if (on_encoded)
        events.on_encoded = [&](size_t i) {
            return told(guard, [&] {
                const Context& c = *jobs[i].context;
                const py::object away = jobs[i].negative
                                            ? py::object(arrays_of(jobs[i].negative->video, jobs[i].negative->audio))
                                            : py::object(py::none());
                const Job& job = jobs[i];
                const std::string prompt = job.request.options.prompt.value_or("");
                on_encoded(i, arrays_of(c.video, c.audio), away,
                           job.plan.enhanced ? py::object(py::str(prompt)) : py::object(py::none()));
            });
        };
    if (on_step)
        events.on_step = [&](size_t i, int64_t done, int64_t steps, const Latents& l) {
            return told(guard, [&] { on_step(i, done, steps, arrays_of(l.video, l.audio)); });
        };
    if (on_denoised)
        events.on_denoised = [&](size_t i) {
            return told(guard, [&] {
                const Job& job = jobs[i];
                Json plan = to_json(job.plan);
                if (job.request.options.seed.value_or(-1) < 0 && !job.plan.draws_noise(job.request))
                    plan["seed"] = nullptr;
                on_denoised(i, arrays_of(job.latents->video, job.latents->audio), to_python(plan));
            });
        };
    if (on_sound)
        events.on_sound = [&](size_t i, const Waveform* w) {
            return told(guard, [&] {
                on_sound(i,
                         w ? py::object(py::make_tuple(to_numpy(w->samples), w->sample_rate)) : py::object(py::none()));
            });
        };
    if (on_frames)
        events.on_frames = [&](size_t i, const Array& pixels) {
            const Frames bytes = to_bytes(pixels);
            return told(guard, [&] { on_frames(i, py::array_t<uint8_t>(pixels.shape, bytes.data.data())); });
        };
    if (on_tiles)
        events.on_tiles = [&](size_t i, const Tiling& t) {
            return told(guard, [&] {
                on_tiles(i, py::make_tuple(t.tile_pixels, t.overlap_pixels, t.tile_frames, t.overlap_frames));
            });
        };
    if (on_decoded) events.on_decoded = [&](size_t i) { return told(guard, [&] { on_decoded(i); }); };
    events.on_finished = [&](size_t i) {
        const WithGil gil;
        const bool go_on = guard.call([&] {
            if (on_finished) on_finished(i, jobs[i].failure ? exception_of(jobs[i].failure) : py::object(py::none()));
        });
        jobs[i].latents.reset();
        jobs[i].failure = jobs[i].failure ? std::make_exception_ptr(0) : nullptr;  // Python's is not to be freed later
        return go_on;
    };
    guard.run(&p, [&] { p.run(jobs, events); });
}

}  // namespace

void give_references(Request& r, const py::list& references) {
    using Bytes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
    for (const auto& one : references) {
        const auto given = one.cast<py::dict>();
        Request::Reference& reference = r.references.emplace_back();
        const auto fill = [&](const char* name, const char* shape_name, Frames& to) {
            const auto shape = given[shape_name].cast<std::array<int64_t, 3>>();
            to = {shape[0], shape[1], shape[2], {}};
            if (given[name].is_none()) return;
            const auto bytes = given[name].cast<Bytes>();
            to.data.assign(bytes.data(), bytes.data() + bytes.size());
        };
        fill("frames", "shape", reference.film.frames);
        if (!given["attention_shape"].is_none()) fill("attention", "attention_shape", reference.attention);
        reference.still = given["still"].cast<bool>();
        reference.strength = given["strength"].cast<float>();
    }
}

void give_material(Request& r, const py::object& sound, const py::object& film) {
    if (!sound.is_none()) r.sound = waveform_of(sound.cast<py::dict>());
    if (film.is_none()) return;
    const auto given = film.cast<py::dict>();
    const auto shape = given["shape"].cast<std::array<int64_t, 3>>();
    r.film.frames = {shape[0], shape[1], shape[2], {}};
    r.film.frame_rate = given["frame_rate"].cast<double>();
    if (!given["frames"].is_none()) {
        const auto rgb = given["frames"].cast<py::array_t<uint8_t, py::array::c_style | py::array::forcecast>>();
        r.film.frames.data.assign(rgb.data(), rgb.data() + rgb.size());
    }
    if (!given["mask_shape"].is_none()) {
        const auto mask = given["mask_shape"].cast<std::array<int64_t, 3>>();
        r.mask = {mask[0], mask[1], mask[2], {}};
        if (!given["mask"].is_none()) {
            const auto bytes = given["mask"].cast<py::array_t<uint8_t, py::array::c_style | py::array::forcecast>>();
            r.mask.data.assign(bytes.data(), bytes.data() + bytes.size());
        }
    }
    if (!given["sound"].is_none()) r.film.sound = waveform_of(given["sound"].cast<py::dict>());
}

void bind_run(py::module_& m, py::class_<Pipeline>& pipeline) {
    py::class_<Job>(m, "Job").def(
        py::init([](const ClipOptions& options, const std::vector<ConditionTuple>& conditions,
                    const std::optional<LatentPair>& noise, const std::optional<LatentPair>& initial,
                    const std::optional<FloatPair>& context, const std::optional<FloatPair>& negative,
                    const std::optional<LatentPair>& latents, bool pictures, bool sound, bool sound_first,
                    const py::object& given_sound, const py::object& given_film, const py::list& references,
                    const std::optional<LatentPair>& second_noise) {
            auto job = std::make_unique<Job>();
            job->request.options = options;
            job->request.images = conditions_of(conditions);
            if (noise) job->request.noise = {to_array(noise->first), to_array(noise->second)};
            if (initial) job->request.initial = {to_array(initial->first), to_array(initial->second), 0};
            job->context = context_of(context);
            job->negative = context_of(negative);
            if (latents) job->latents = Latents{to_array(latents->first), to_array(latents->second), 0};
            job->pictures = pictures;
            job->sound = sound;
            job->sound_first = sound_first;
            give_material(job->request, given_sound, given_film);
            give_references(job->request, references);
            if (second_noise) job->second_noise = {to_array(second_noise->first), to_array(second_noise->second)};
            return job;
        }),
        "options"_a, py::kw_only(), "conditions"_a = py::list(), "noise"_a = py::none(), "initial"_a = py::none(),
        "context"_a = py::none(), "negative"_a = py::none(), "latents"_a = py::none(), "pictures"_a = true,
        "sound"_a = true, "sound_first"_a = false, "given_sound"_a = py::none(), "given_film"_a = py::none(),
        "references"_a = py::list(), "second_noise"_a = py::none());
    pipeline
        .def("run", &run, "jobs"_a, py::kw_only(), "progress"_a = py::none(),
             "on"_a = std::map<std::string, py::function>{})
        .def_property_readonly("whole_progress", [](const Pipeline& p) {
            const WholeProgress w = p.whole_progress();
            return py::make_tuple(w.fraction,
                                  w.seconds_left < 0 ? py::object(py::none()) : py::object(py::float_(w.seconds_left)));
        });
}

}  // namespace sdltx
