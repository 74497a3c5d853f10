// Options of a clip, and what comes of them: dictionaries for Python.
#include "bindings.h"
#include "clip/material.h"
#include "clip/options.h"
#include "clip/recipes.h"
#include "gemma/tokenizer.h"
#include "model/presets.h"

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

py::list task_dicts() {
    py::list tasks;
    for (const TaskRow& t : all_tasks())
        tasks.append(py::dict("name"_a = t.name, "purpose"_a = t.purpose, "needs"_a = t.needs));
    return tasks;
}

py::list option_dicts() {
    py::list rows;
    for (const Option& o : all_options()) {
        py::dict d("name"_a = o.name, "kind"_a = name_of(o.kind), "group"_a = o.group, "unit"_a = o.unit,
                   "range"_a = py::none(), "flags"_a = o.flags, "metavar"_a = o.metavar, "remembered"_a = o.remembered,
                   "inherited"_a = o.inherited, "since"_a = o.since, "help"_a = o.help, "docs"_a = o.docs,
                   "choices"_a = o.choices());
        if (o.has_range()) d["range"] = py::make_tuple(o.least, o.most);
        rows.append(d);
    }
    return rows;
}

template <typename T>
void read(const py::handle& value, std::optional<T>& field) {
    field = value.cast<T>();
}
void read(const py::handle& value, std::optional<std::vector<LoraFile>>& field) {
    field = loras_of(value.cast<std::vector<LoraPair>>());
}

}  // namespace

std::vector<LoraFile> loras_of(const std::vector<LoraPair>& pairs) {
    std::vector<LoraFile> files;
    for (const auto& [path, strength] : pairs) files.push_back({path, strength});
    return files;
}

py::object to_python(const Json& json) {
    if (json.is_boolean()) return py::bool_(json.get<bool>());
    if (json.is_number_integer()) return py::int_(json.get<int64_t>());
    if (json.is_number()) return py::float_(json.get<double>());
    if (json.is_string()) return decoded(json.get_ref<const std::string&>());
    if (json.is_array()) {
        py::list list;
        for (const Json& one : json) list.append(to_python(one));
        return list;
    }
    if (!json.is_object()) return py::none();
    py::dict dict;
    for (auto& [name, value] : json.items()) dict[py::str(name)] = to_python(value);
    return dict;
}

Tiling tiling_of(const std::optional<std::array<int64_t, 4>>& t) {
    return t ? Tiling{(*t)[0], (*t)[1], (*t)[2], (*t)[3]} : Tiling{};
}

void bind_options(py::module_& m) {
    py::class_<ClipOptions>(m, "ClipOptions").def(py::init([](const py::kwargs& given) {
        ClipOptions o;
        size_t known = 0;
        for_each_option([&](const Option& option, auto field) {
            if (!given.contains(option.name)) return;
            read(given[option.name], o.*field);
            ++known;
        });
        if (known != given.size()) throw py::type_error("there is no such option");
        return o;
    }));
    m.def("option_table", &option_dicts);
    m.def("told_names", [] { return told_names(); });
    m.def("check", py::overload_cast<const ClipOptions&>(&check), "options"_a);
    m.def("check_tiling", [](const std::optional<std::array<int64_t, 4>>& t) { check(tiling_of(t)); }, "tiling"_a);
    m.attr("presets") = py::cast(preset_names());
    m.attr("recipes") = py::cast(recipe_names());
    m.attr("samplers") = py::cast(sampler_names());
    m.attr("guidance_methods") = py::cast(guidance_method_names());
    m.attr("default_negative_prompt") = default_negative_prompt();
    m.def("preset_table", &preset_dicts);
    m.def("recipe_table", &recipe_dicts);
    m.def("task_table", &task_dicts);
    m.attr("max_prompt_bytes") = Tokenizer::max_bytes;
    m.attr("default_tiling") =
        py::make_tuple(Tiling{}.tile_pixels, Tiling{}.overlap_pixels, Tiling{}.tile_frames, Tiling{}.overlap_frames);
}

}  // namespace sdltx
