// Options of a clip, and what comes of them: dictionaries for Python.
#include "bindings.h"
#include "gemma3/tokenizer.h"
#include "presets.h"

namespace py = pybind11;
using namespace py::literals;

namespace sdltx {

namespace {

py::list preset_dicts() {
    py::list presets;
    for (const Preset& p : all_presets()) {
        py::dict d;
        for_each_value(p, [&](const char* name, const auto& value) { d[name] = value; });
        presets.append(d);
    }
    return presets;
}

}  // namespace

py::dict settings_dict(const SampleSettings& s) {
    py::dict d;
    for_each_setting(s, [&](const char* name, const auto& value) { d[name] = value; });
    return d;
}

Tiling tiling_of(const std::optional<std::array<int64_t, 4>>& t) {
    return t ? Tiling{(*t)[0], (*t)[1], (*t)[2], (*t)[3]} : Tiling{};
}

void bind_options(py::module_& m) {
    py::class_<SampleOptions>(m, "SampleOptions").def(py::init([](const py::kwargs& given) {
        SampleOptions o;
        size_t known = 0;
        const auto read = [&](const char* name, auto& field) {
            if (!given.contains(name)) return;
            field = given[name].template cast<std::decay_t<decltype(field)>>();
            ++known;
        };
        read("width", o.width);
        read("height", o.height);
        read("num_frames", o.num_frames);
        read("frame_rate", o.frame_rate);
        read("num_inference_steps", o.num_inference_steps);
        read("sigmas", o.sigmas);
        read("seed", o.seed);
        read("preset", o.preset);
        read("sampler", o.sampler);
        read("audio", o.audio);
        read("guidance_scale", o.guidance_scale);
        read("audio_guidance_scale", o.audio_guidance_scale);
        read("stg_scale", o.stg_scale);
        read("audio_stg_scale", o.audio_stg_scale);
        read("modality_scale", o.modality_scale);
        read("audio_modality_scale", o.audio_modality_scale);
        read("guidance_rescale", o.guidance_rescale);
        read("audio_guidance_rescale", o.audio_guidance_rescale);
        read("guidance_skip_steps", o.guidance_skip_steps);
        read("audio_guidance_skip_steps", o.audio_guidance_skip_steps);
        read("stg_blocks", o.stg_blocks);
        read("guidance_interval", o.guidance_interval);
        read("guidance_method", o.guidance_method);
        read("apg_eta", o.apg_eta);
        read("apg_threshold", o.apg_threshold);
        if (known != given.size()) throw py::type_error("there is no such option");
        return o;
    }));
    m.def("check", py::overload_cast<const SampleOptions&>(&check), "options"_a);
    m.def("check_tiling", [](const std::optional<std::array<int64_t, 4>>& t) { check(tiling_of(t)); }, "tiling"_a);
    m.attr("presets") = py::cast(preset_names());
    m.attr("samplers") = py::cast(sampler_names());
    m.attr("guidance_methods") = py::cast(guidance_method_names());
    m.attr("default_negative_prompt") = default_negative_prompt();
    m.def("preset_table", &preset_dicts);
    m.attr("max_prompt_bytes") = Tokenizer::max_bytes;
    m.attr("default_tiling") =
        py::make_tuple(Tiling{}.tile_pixels, Tiling{}.overlap_pixels, Tiling{}.tile_frames, Tiling{}.overlap_frames);
}

}  // namespace sdltx
