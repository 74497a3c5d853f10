// The Python extension sdltx._core_tests: what tests and benchmarks ask of the core beside its interface. Importing it
// adds all of that to sdltx._core; wheels for other machines do not have it.
#include "bindings.h"
#include "bindings_guard.h"
#include "clip/pipeline.h"
#include "ggml/values.h"
#include "ltxv/config_from_shapes.h"
#include "ltxv/image.h"
#include "ltxv/noise.h"
#include "ltxv/schedule.h"
#include "model/names.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sdltx;

namespace {

void bind_parts(py::module_& m) {
    py::class_<ModelFiles>(m, "ModelFiles")
        .def(py::init([](const std::vector<std::string>& paths) {
                 return std::make_unique<ModelFiles>(paths, ltx_naming());
             }),
             "paths"_a)
        .def("names",
             [](const ModelFiles& f) {
                 py::list names;
                 for (auto& file : f.files())
                     for (auto& t : file->tensors()) names.append(decoded(t.name));
                 return names;
             })
        .def(
            "metadata",
            [](const ModelFiles& f, const std::string& key, const std::string& prefix) {
                const auto value = f.metadata(key, prefix);
                return value ? py::object(decoded(*value)) : py::object(py::none());
            },
            "key"_a, "prefix"_a = "")
        .def(
            "config_from_shapes",
            [](const ModelFiles& f, const std::string& section) { return config_text_from_shapes(f, section); },
            "section"_a)
        .def(
            "dtype",
            [](const ModelFiles& f, const std::string& name) {
                const TensorInfo* t = f.find(name);
                if (!t) throw py::key_error(name);
                return t->dtype;
            },
            "name"_a)
        .def(
            "tensor",
            [](const ModelFiles& f, const std::string& name) {
                const TensorInfo* t = f.find(name);
                if (!t) throw py::key_error(name);
                return to_numpy(to_float(*t));
            },
            "name"_a);
    py::class_<Tokenizer>(m, "Tokenizer")
        .def(py::init(
                 [](const std::vector<std::string>& paths) { return load_tokenizer(ModelFiles(paths, ltx_naming())); }),
             "paths"_a)
        .def(
            "encode",
            [](const Tokenizer& t, const std::string& text) {
                const auto ids = t.encode(text);
                return py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
            },
            "text"_a)
        .def("decode", &Tokenizer::decode, "ids"_a)
        .def_property_readonly("size", &Tokenizer::size);
    m.def(
        "write_answer",
        [](const std::vector<std::string>& paths, const std::string& system, const std::string& user, int64_t most,
           uint64_t seed, const std::string& precision, const std::string& device) {
            return write_answer(ModelFiles(paths, ltx_naming()), system, user, most, seed, precision == "f32", device);
        },
        "paths"_a, "system"_a, "user"_a, py::kw_only(), "most"_a = 64, "seed"_a = 0, "precision"_a = "auto",
        "device"_a = "cpu");
    m.def(
        "encode_tokens",
        [](const std::vector<std::string>& paths, const std::vector<int32_t>& ids, const std::string& precision,
           const std::string& device) {
            return to_numpy(encode_tokens(ModelFiles(paths, ltx_naming()), ids, precision == "f32", device));
        },
        "paths"_a, "ids"_a, py::kw_only(), "precision"_a = "f32", "device"_a = "cpu");
    m.def(
        "frames_of_duration", [](double seconds, double rate) { return frames_of_duration(seconds, rate); },
        "seconds"_a, "frame_rate"_a);
    m.def(
        "within",
        [](const FloatArray& positions, double from, double to) {
            const Array p = to_array(positions);
            return within({p.dim(0), p.dim(1), p.data}, from, to);
        },
        "positions"_a, "start"_a, "end"_a);
    m.def(
        "video_positions",
        [](int64_t frames, int64_t height, int64_t width, double frame_rate) {
            const Positions p = video_positions(frames, height, width, frame_rate);
            return to_numpy({p.axes, p.tokens, 2}, p.bounds);
        },
        "frames"_a, "height"_a, "width"_a, "frame_rate"_a);
    m.def(
        "fit_image",
        [](const py::array_t<uint8_t, py::array::c_style>& image, int64_t height, int64_t width) {
            const Array fitted = fit_image(
                {1, image.shape(0), image.shape(1), {image.data(), image.data() + image.size()}}, height, width);
            return to_numpy({height, width, 3}, fitted.data);
        },
        "image"_a, "height"_a, "width"_a);
    m.def(
        "audio_positions",
        [](int64_t frames) {
            const Positions p = audio_positions(frames);
            return to_numpy({p.axes, p.tokens, 2}, p.bounds);
        },
        "frames"_a);
    m.def(
        "rope_table",
        [](const FloatArray& positions, int64_t dim, const std::vector<double>& max_pos, double theta) {
            const Array p = to_array(positions);
            const RopeTable t = rope_table({p.dim(0), p.dim(1), p.data}, dim, max_pos, theta);
            return py::make_tuple(to_numpy({p.dim(1), dim / 2}, t.cos), to_numpy({p.dim(1), dim / 2}, t.sin));
        },
        "positions"_a, "dim"_a, "max_pos"_a, "theta"_a);
    m.def("distilled_sigmas", &distilled_sigmas);
    m.def("distilled_stage_2_sigmas", &distilled_stage_2_sigmas);
    m.def(
        "ltx2_sigmas",
        [](int64_t steps, int64_t tokens, bool stretch) { return ltx2_sigmas(steps, {tokens, stretch, 0.1}); },
        "steps"_a, "tokens"_a = 4096, "stretch"_a = true);
    m.def(
        "normal_noise",
        [](uint64_t seed, uint32_t stream, int64_t count, uint32_t step) {
            return to_numpy({count}, normal_noise(seed, static_cast<NoiseStream>(stream), count, step));
        },
        "seed"_a, "stream"_a, "count"_a, "step"_a = 0);
}

void bind_methods(py::class_<Pipeline>& pipeline) {
    pipeline
        .def("unused_tensors",
             [](Pipeline& p) {
                 py::list names;
                 for (auto& name : p.unused_tensors()) names.append(decoded(name));
                 return names;
             })
        .def(
            "set_patience", [](Pipeline& p, int64_t multiply_adds) { p.backend().set_patience(multiply_adds); },
            "multiply_adds"_a)
        .def(
            "pretend_memory",
            [](Pipeline& p, std::vector<size_t> bytes) { p.backend().pretend_memory(std::move(bytes)); }, "bytes"_a)
        .def(
            "hidden_states",
            [](Pipeline& p, const std::string& prompt) {
                return to_numpy(Guard(std::nullopt).run(&p, [&] { return p.hidden_states(prompt); }));
            },
            "prompt"_a)
        .def(
            "writing_prompt",
            [](Pipeline& p, const std::string& prompt, const std::string& system) {
                return p.writing_prompt(prompt, system);
            },
            "prompt"_a, "system"_a)
        .def(
            "next_scores",
            [](Pipeline& p, const std::vector<int32_t>& ids, const std::vector<int32_t>& then) {
                return to_numpy(Guard(std::nullopt).run(&p, [&] { return p.next_scores(ids, then); }));
            },
            "ids"_a, "then"_a)
        .def(
            "sample",
            [](Pipeline& p, const FloatArray& video_context, const FloatArray& audio_context, const ClipOptions& o,
               const std::optional<FloatArray>& video_noise, const std::optional<FloatArray>& audio_noise,
               const std::optional<FloatPair>& negative, const std::vector<ConditionTuple>& conditions,
               const std::optional<LatentPair>& initial, const std::optional<LatentPair>& second_noise,
               std::optional<py::function> progress, std::optional<py::function> on_step) {
                Request request{
                    o, conditions_of(conditions), {to_array(video_noise), to_array(audio_noise)}, latents_of(initial)};
                ClipPlan plan = p.resolve(request);
                const Latents again = latents_of(second_noise);
                const Context context{to_array(video_context), to_array(audio_context)};
                const std::optional<Context> away = context_of(negative);
                Guard guard(std::move(progress));
                const auto arrays = [](const Latents& l) {
                    return py::make_tuple(to_numpy(l.video),
                                          l.audio.empty() ? py::object(py::none()) : py::object(to_numpy(l.audio)));
                };
                Pipeline::OnStep each;
                if (on_step)
                    each = [&](int64_t done, int64_t steps, const Latents& estimate) {
                        const WithGil gil;
                        return guard.call([&] { (*on_step)(done, steps, *arrays(estimate)); });
                    };
                const Latents l = guard.run(&p, [&] {
                    plan = p.settle_length(plan, request, context);
                    return p.sample(context, away ? &*away : nullptr, plan, request, {again.video, again.audio},
                                    guard.progress(), each);
                });
                const py::tuple result = arrays(l);
                Json told = to_json(plan);
                if (o.seed.value_or(-1) < 0 && !plan.draws_noise(request)) told["seed"] = nullptr;
                return py::make_tuple(result[0], result[1], to_python(told));
            },
            "video_context"_a, "audio_context"_a, "options"_a, py::kw_only(), "video_noise"_a = py::none(),
            "audio_noise"_a = py::none(), "negative"_a = py::none(), "conditions"_a = py::list(),
            "initial"_a = py::none(), "second_noise"_a = py::none(), "progress"_a = py::none(),
            "on_step"_a = py::none())
        .def("traced_runs", &Pipeline::traced_runs);
}

}  // namespace

PYBIND11_MODULE(_core_tests, m) {
    m.doc() = "Adds to sdltx._core what tests ask of it.";
    py::module_ core = py::module_::import("sdltx._core");
    auto pipeline = py::reinterpret_borrow<py::class_<Pipeline>>(core.attr("Pipeline"));
    bind_parts(core);
    bind_methods(pipeline);
    bind_sampler(core, pipeline);
    bind_ops(core);
}
