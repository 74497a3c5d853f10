// The Python extension sdltx._core: converts, releases the GIL, calls, converts. No arithmetic, no defaults.
#include "bindings.h"

#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/platform.h"
#include "bindings_guard.h"
#include "clip/pipeline.h"
#include "ggml/cpu_kernels.h"
#include "ggml/worker.h"
#include "model/names.h"

namespace py = pybind11;
using namespace py::literals;
using namespace sdltx;

namespace {

// --- log ---

// Kept for the life of the process: ggml may log from any thread until the end.
PyObject* log_function = nullptr;

void on_log(int level, const char* text, void*) {
    const WithGil gil;
    if (!log_function) return;
    const auto function = py::reinterpret_borrow<py::object>(log_function);  // it may replace itself while it runs
    PyObject* line = PyUnicode_DecodeUTF8(text, static_cast<Py_ssize_t>(std::strlen(text)), "replace");
    PyObject* result = line ? PyObject_CallFunction(function.ptr(), "iN", level, line) : nullptr;
    Py_XDECREF(result);
    if (result) return;
    if (PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_WriteUnraisable(function.ptr());
    else
        deferred = std::make_unique<py::error_already_set>();
}

void bind_log(py::module_& m) {
    m.def(
        "set_log",
        [](std::optional<py::function> callback) {
            PyObject* old = log_function;
            log_function = callback ? callback->release().ptr() : nullptr;
            Py_XDECREF(old);
            set_log(log_function ? on_log : nullptr, nullptr);
        },
        "callback"_a);
    take_ggml_log();
}

// --- pipeline ---

py::dict info_dict(const Pipeline& p) {
    const ModelInfo& i = p.info();
    const SampleSettings s = p.defaults();
    py::dict defaults("width"_a = s.width, "height"_a = s.height, "num_frames"_a = s.num_frames,
                      "frame_rate"_a = s.frame_rate, "steps"_a = s.num_inference_steps());
    py::object note = i.note.empty() ? py::object(py::none()) : py::object(decoded(i.note));
    py::list parts;
    for (Part part : i.parts) parts.append(name_of(part));
    return py::dict("model"_a = decoded(i.name), "version"_a = decoded(i.version), "distilled"_a = i.distilled,
                    "preset"_a = s.preset, "defaults"_a = defaults, "negative_prompt"_a = decoded(i.negative_prompt),
                    "own_defaults"_a = i.defaults.num_inference_steps.has_value(), "parts"_a = parts, "note"_a = note,
                    "image_crf"_a = i.image_crf, "has_audio"_a = i.has(Part::audio_decoder) && i.has(Part::vocoder));
}

Offload offload_of(const std::string& name) {
    if (name == "none") return Offload::none;
    if (name == "stage") return Offload::stage;
    if (name == "blocks") return Offload::blocks;
    if (name == "auto") return Offload::automatic;
    throw Error(ErrorCode::invalid_request,
                "[load] offload '" + name + "' is unknown; use auto, none, stage or blocks");
}

void bind_pipeline(py::module_& m) {
    py::class_<Pipeline> pipeline(m, "Pipeline");
    bind_run(m, pipeline);
    pipeline
        .def(py::init([](const std::vector<std::string>& paths, const std::string& device, const std::string& precision,
                         int threads, const std::string& offload, double max_memory, double max_vram,
                         std::optional<py::function> progress) {
                 if (precision != "auto" && precision != "f32")
                     throw Error(ErrorCode::invalid_request,
                                 "[load] precision '" + precision + "' is unknown; use auto or f32");
                 Guard guard(std::move(progress));
                 LoadOptions o{device,           precision == "f32",    threads, offload_of(offload),
                               guard.progress(), {max_memory, max_vram}};
                 return guard.run(nullptr, [&] { return std::make_unique<Pipeline>(paths, o); });
             }),
             "paths"_a, py::kw_only(), "device"_a, "precision"_a, "threads"_a, "offload"_a, "max_memory"_a,
             "max_vram"_a, "progress"_a = py::none())
        .def_property_readonly("info", [](const Pipeline& p) { return info_dict(p); })
        .def(
            "doubts",
            [](const Pipeline& p, const Job& job) {
                return Guard(std::nullopt).run(nullptr, [&] { return p.doubts(p.resolve(job.request)); });
            },
            "job"_a)
        .def("upscalers",
             [](const Pipeline& p) {
                 py::list found;
                 for (auto& [path, kind] : p.upscalers()) found.append(py::make_tuple(decoded(path), kind));
                 return found;
             })
        .def("decoder_fingerprint", &Pipeline::decoder_fingerprint)
        .def("encoder_fingerprint", &Pipeline::encoder_fingerprint)
        .def("encoder_bytes", &Pipeline::encoder_bytes)
        .def("opened",
             [](Pipeline& p) {
                 py::list found;
                 for (auto& path : p.opened()) found.append(decoded(path));
                 return found;
             })
        .def_property_readonly("latent_channels", &Pipeline::latent_channels)
        .def_property_readonly("device", [](Pipeline& p) { return p.device(); })
        .def(
            "require",
            [](const Pipeline& p, const std::vector<std::string>& names) {
                std::vector<Part> parts;
                for (auto& name : names) parts.push_back(part_of(name));
                p.require(parts);
            },
            "parts"_a)
        .def(
            "check_latents",
            [](Pipeline& p, const std::vector<int64_t>& video, const std::optional<std::vector<int64_t>>& audio) {
                p.check_latents(&video, audio ? &*audio : nullptr);
            },
            "video"_a, "audio"_a)
        .def(
            "tokenize",
            [](Pipeline& p, const std::string& text) {
                const auto ids = p.tokenize(text);
                return py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
            },
            "text"_a)
        .def(
            "encode",
            [](Pipeline& p, const std::string& prompt, std::optional<py::function> progress) {
                Guard guard(std::move(progress));
                const Context c = guard.run(&p, [&] { return p.encode(prompt, guard.progress()); });
                return py::make_tuple(to_numpy(c.video), to_numpy(c.audio));
            },
            "prompt"_a, py::kw_only(), "progress"_a = py::none())
        .def(
            "enhance",
            [](Pipeline& p, const std::string& prompt, const std::string& system, int64_t seed,
               std::optional<py::function> progress) {
                Guard guard(std::move(progress));
                return guard.run(
                    &p, [&] { return p.enhance(prompt, system, static_cast<uint64_t>(seed), guard.progress()); });
            },
            "prompt"_a, py::kw_only(), "system"_a = "", "seed"_a = 0, "progress"_a = py::none())
        .def(
            "resolve",
            [](const Pipeline& p, const Job& job) {
                return to_python(to_json(Guard(std::nullopt).run(nullptr, [&] { return p.resolve(job.request); })));
            },
            "job"_a)
        .def(
            "check",
            [](Pipeline& p, const Job& job) {
                Guard(std::nullopt).run(&p, [&] { p.check(p.resolve(job.request), job.request); });
            },
            "job"_a)
        .def(
            "duration",
            [](Pipeline& p, const FloatPair& context) {
                const Context c{to_array(context.first), to_array(context.second)};
                return Guard(std::nullopt).run(&p, [&] { return p.duration(c); });
            },
            "context"_a)
        .def(
            "decode",
            [](Pipeline& p, const FloatArray& video, std::optional<std::array<int64_t, 4>> tiling,
               py::function on_frames, bool raw, std::optional<py::function> progress) {
                const Array latents = to_array(video);
                const Tiling t = tiling_of(tiling);
                Guard guard(std::move(progress));
                const auto sink = [&](const Array& frames) {
                    Frames bytes;
                    if (!raw) bytes = to_bytes(frames);
                    const WithGil gil;
                    const bool go_on = guard.call([&] {
                        if (raw)
                            on_frames(to_numpy(frames));
                        else
                            on_frames(py::array_t<uint8_t>(frames.shape, bytes.data.data()));
                    });
                    if (!go_on) throw Error(ErrorCode::cancelled, "[decode] stopped");
                };
                guard.run(&p, [&] { p.decode(latents, t, sink, guard.progress()); });
            },
            "video"_a, py::kw_only(), "tiling"_a = py::none(), "on_frames"_a, "raw"_a = false,
            "progress"_a = py::none())
        .def(
            "encode_video",
            [](Pipeline& p, const py::array& frames, std::optional<std::array<int64_t, 4>> tiling,
               std::optional<py::function> progress) {
                const Tiling t = tiling_of(tiling);
                Guard guard(std::move(progress));
                const auto encoded = [&](const Footage& footage) {
                    return to_numpy(guard.run(&p, [&] { return p.encode_video(footage, t, guard.progress()); }));
                };
                using Bytes = py::array_t<uint8_t, py::array::c_style>;
                if (py::isinstance<Bytes>(frames)) {
                    const auto rgb = py::cast<Bytes>(frames);
                    if (rgb.ndim() != 4 || rgb.shape(3) != 3) throw py::type_error("expected (F, H, W, 3) bytes");
                    return encoded(footage_of(rgb.data(), rgb.shape(0), rgb.shape(1), rgb.shape(2)));
                }
                const Array pixels = to_array(py::cast<FloatArray>(frames));
                return encoded(footage_of(pixels));
            },
            "frames"_a, py::kw_only(), "tiling"_a = py::none(), "progress"_a = py::none())
        .def(
            "upsample",
            [](Pipeline& p, const FloatArray& video, double frame_rate, const std::string& upscaler,
               std::optional<py::function> progress) {
                const Latents latents{to_array(video), {}, frame_rate};
                Guard guard(std::move(progress));
                const Latents out = guard.run(&p, [&] { return p.upsample(latents, upscaler, guard.progress()); });
                return py::make_tuple(to_numpy(out.video), out.frame_rate);
            },
            "video"_a, "frame_rate"_a, "upscaler"_a, py::kw_only(), "progress"_a = py::none())
        .def(
            "estimate",
            [](Pipeline& p, const Job& job) {
                return to_python(to_json(
                    Guard(std::nullopt).run(&p, [&] { return p.estimate(p.resolve(job.request), job.request); })));
            },
            "job"_a)
        .def("memory",
             [](Pipeline& p) {
                 py::list devices;
                 for (auto& d : p.memory())
                     devices.append(py::dict("device"_a = d.device, "weights"_a = d.weights, "mapped"_a = d.mapped,
                                             "inputs"_a = d.inputs, "working"_a = d.working));
                 return devices;
             })
        .def(
            "decode_audio",
            [](Pipeline& p, const FloatArray& audio, double piece_seconds, std::optional<py::function> progress) {
                const Array latents = to_array(audio);
                Guard guard(std::move(progress));
                const Waveform w =
                    guard.run(&p, [&] { return p.decode_audio(latents, piece_seconds, guard.progress()); });
                return py::make_tuple(to_numpy(w.samples), w.sample_rate);
            },
            "audio"_a, py::kw_only(), "piece_seconds"_a = 4.0, "progress"_a = py::none())
        .def(
            "encode_audio",
            [](Pipeline& p, const FloatArray& samples, int sample_rate) {
                const Waveform sound{to_array(samples), sample_rate, 0};
                return to_numpy(Guard(std::nullopt).run(&p, [&] { return p.encode_audio(sound); }));
            },
            "samples"_a, "sample_rate"_a)
        .def(
            "trace", [](Pipeline& p, std::vector<std::string> patterns) { p.trace(std::move(patterns)); }, "patterns"_a)
        .def("traced",
             [](Pipeline& p) {
                 py::dict out;
                 for (auto& [name, a] : p.traced()) out[py::str(name)] = to_numpy(a);
                 return out;
             })
        .def("close", &Pipeline::close);
}

// --- what is there, and what runs without a pipeline ---

void bind_machine(py::module_& m) {
    m.def("usable_processors", &usable_processors);
    m.attr("max_threads") = GGML_MAX_N_THREADS;
    m.def("end_on_second_signal", &end_on_second_signal);
    m.def("guard_file", &guard_file, "path"_a);
    m.def("release_file", &release_file, "path"_a);
    m.def("remove_guarded_files", &remove_guarded_files);
    m.def(
        "serve",
        [](const std::string& host, int port, const std::string& device, int threads, double max_memory) {
            const WithoutGil release;
            const Inside inside;
            serve(host, port, device, threads, max_memory);
        },
        "host"_a, "port"_a, py::kw_only(), "device"_a, "threads"_a, "max_memory"_a);
    m.def("backends", [] {
        py::dict out;
        for (auto& b : Backend::built_in()) {
            py::dict features;
            for (auto& [name, value] : b.features) features[py::str(name)] = value;
            out[py::str(b.name)] = features;
        }
        return out;
    });
    m.def("cpu_kernels", [] { return cpu_kernels().name; });
    m.def("cpu_kernel_names", &cpu_kernel_names);
    m.def("devices", [] {
        py::list out;
        for (auto& d : Backend::devices())
            out.append(py::dict("name"_a = d.name, "description"_a = d.description, "kind"_a = d.kind,
                                "memory_free"_a = d.memory_free, "memory_total"_a = d.memory_total));
        return out;
    });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = SDLTX_VERSION;
    m.attr("ggml_version") = Backend::ggml_version();
    bind_errors(m);
    bind_log(m);
    bind_options(m);
    bind_pipeline(m);
    bind_files(m);
    bind_machine(m);
}
