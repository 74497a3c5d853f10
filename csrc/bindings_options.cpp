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

py::list recipe_dicts() {
    py::list recipes;
    for (const Recipe& r : all_recipes())
        recipes.append(py::dict("name"_a = r.name, "purpose"_a = r.purpose, "distilled"_a = r.distilled,
                                "stages"_a = r.two_stages ? 2 : 1, "needs"_a = r.needs()));
    return recipes;
}

}  // namespace

std::vector<LoraFile> loras_of(const std::vector<LoraPair>& pairs) {
    std::vector<LoraFile> files;
    for (const auto& [path, strength] : pairs) files.push_back({path, strength});
    return files;
}

py::dict plan_dict(const ClipPlan& plan) {
    const auto dict_of = [](const SampleSettings& s) {
        py::dict d;
        for_each_setting(s, [&](const char* name, const auto& value) { d[name] = value; });
        return d;
    };
    py::list stages, upscalers;
    for (const ClipPlan::Stage& stage : plan.stages) {
        py::list loras;
        for (const LoraFile& f : stage.loras) loras.append(py::make_tuple(decoded(f.path), f.strength));
        py::dict d = dict_of(stage.settings);
        d["loras"] = loras;
        stages.append(d);
    }
    for (const std::string& path : plan.upscalers) upscalers.append(decoded(path));
    py::dict d = dict_of(plan.whole);
    d["recipe"] = plan.recipe->name;
    d["upscalers"] = upscalers;
    d["distilled_lora"] =
        plan.distilled_lora.empty() ? py::object(py::none()) : py::object(decoded(plan.distilled_lora));
    d["stages"] = stages;
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
        read("recipe", o.recipe);
        read("upscalers", o.upscalers);
        read("distilled_lora", o.distilled_lora);
        std::vector<LoraPair> loras;
        std::optional<std::vector<LoraPair>> second_loras;
        read("loras", loras);
        read("second_loras", second_loras);
        o.loras = loras_of(loras);
        if (second_loras) o.second_loras = loras_of(*second_loras);
        if (known != given.size()) throw py::type_error("there is no such option");
        return o;
    }));
    m.def("check", py::overload_cast<const SampleOptions&>(&check), "options"_a);
    m.def("check_tiling", [](const std::optional<std::array<int64_t, 4>>& t) { check(tiling_of(t)); }, "tiling"_a);
    m.attr("presets") = py::cast(preset_names());
    m.attr("recipes") = py::cast(recipe_names());
    m.attr("samplers") = py::cast(sampler_names());
    m.attr("guidance_methods") = py::cast(guidance_method_names());
    m.attr("default_negative_prompt") = default_negative_prompt();
    m.def("preset_table", &preset_dicts);
    m.def("recipe_table", &recipe_dicts);
    m.attr("max_prompt_bytes") = Tokenizer::max_bytes;
    m.attr("default_tiling") =
        py::make_tuple(Tiling{}.tile_pixels, Tiling{}.overlap_pixels, Tiling{}.tile_frames, Tiling{}.overlap_frames);
}

}  // namespace sdltx
