// The part of the Python extension that deals with model files without loading them.
#include "bindings.h"
#include "bindings_guard.h"
#include "model/convert/conversion.h"
#include "model/inspect.h"
#include "model/names.h"

namespace sdltx {

void bind_files(py::module_& m) {
    using namespace py::literals;
    m.attr("file_parts") = py::cast(file_part_names());
    m.attr("file_types") = py::cast(mix_names());
    py::class_<Conversion>(m, "Conversion")
        .def(py::init([](const std::vector<std::string>& paths, const std::string& format, const std::string& type,
                         const std::vector<std::pair<std::string, std::string>>& tensor_types,
                         const std::vector<std::string>& parts, const std::string& imatrix, int threads) {
                 const FileFormat f = format == "gguf" ? FileFormat::gguf : FileFormat::safetensors;
                 return Guard(std::nullopt).run(nullptr, [&] {
                     return std::make_unique<Conversion>(
                         paths, ConvertOptions{f, type, tensor_types, parts, imatrix, threads});
                 });
             }),
             "paths"_a, py::kw_only(), "format"_a, "type"_a, "tensor_types"_a, "parts"_a, "imatrix"_a, "threads"_a)
        .def_property_readonly("parts", &Conversion::parts)
        .def_property_readonly("bytes", &Conversion::bytes)
        .def_property_readonly("files", &Conversion::files)
        .def_property_readonly("types",
                               [](const Conversion& c) {
                                   py::list types;
                                   for (auto& [name, type] : c.types())
                                       types.append(py::make_tuple(decoded(name), type));
                                   return types;
                               })
        .def(
            "write",
            [](Conversion& c, const std::string& path, std::optional<py::function> progress) {
                Guard guard(std::move(progress));
                guard.run(nullptr, [&] { c.write(path, guard.progress()); });
            },
            "path"_a, py::kw_only(), "progress"_a = py::none());
    m.def(
        "inspect",
        [](const std::vector<std::string>& paths) {
            return Guard(std::nullopt).run(nullptr, [&] { return inspect(paths); });
        },
        "paths"_a);
}

}  // namespace sdltx
