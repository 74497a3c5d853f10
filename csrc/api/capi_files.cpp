// The part of the C ABI that needs no pipeline: devices, presets, and model files without loading them.
#include "capi_run.h"
#include "model/convert/conversion.h"
#include "model/convert/output_file.h"
#include "model/inspect.h"

namespace sdltx {

namespace {

sdltx_convert_options convert_options(const sdltx_convert_options* given) {
    sdltx_convert_options o;
    sdltx_convert_options_init(&o, SDLTX_CONVERT_OPTIONS_VERSION);
    take_options(o, given, "convert options", {sizeof(sdltx_convert_options)});
    return o;
}

FileFormat format_of(const std::string& path) {
    const auto ends_in = [&](const std::string& suffix) {
        return path.size() > suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
    };
    if (ends_in(".gguf")) return FileFormat::gguf;
    if (ends_in(".safetensors")) return FileFormat::safetensors;
    refuse("convert", path + " ends neither in .gguf nor in .safetensors");
}

void convert(const std::vector<std::string>& paths, const std::string& path, const sdltx_convert_options& c) {
    ConvertOptions o;
    o.format = format_of(path);
    if (c.type) o.type = c.type;
    if (c.parts)
        o.parts = strings(c.parts, c.num_parts, "parts");
    else if (o.format == FileFormat::gguf)
        o.parts = {"transformer"};
    if (c.tensor_types) {
        const std::vector<std::string> rules = strings(c.tensor_types, 2 * c.num_tensor_types, "tensor_types");
        for (size_t i = 0; i < rules.size(); i += 2) o.rules.emplace_back(rules[i], rules[i + 1]);
    }
    if (c.imatrix) o.imatrix = c.imatrix;
    o.threads = c.threads;
    Conversion conversion(paths, o);
    OutputFile output(path);
    for (const std::string& file : conversion.files())
        if (output.replaces(file)) refuse("output", path + " is also an input; choose another name");
    Watch watch(c.progress, c.progress_payload);
    conversion.write(output.temporary(), watch.progress());
    output.commit();
}

}  // namespace

}  // namespace sdltx

using namespace sdltx;

sdltx_status sdltx_inspect(const char* const* paths, size_t num_paths, char** json) {
    return guarded([&] {
        emptied(json, "json");
        *json = copied(inspect(model_paths(paths, num_paths)));
    });
}

sdltx_status sdltx_devices(char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json devices = Json::array();
        for (const DeviceInfo& d : Backend::devices())
            devices.push_back({{"name", d.name},
                               {"description", d.description},
                               {"kind", d.kind},
                               {"memory_free", d.memory_free},
                               {"memory_total", d.memory_total}});
        *json = copied(devices);
    });
}

sdltx_status sdltx_recipes(char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json recipes = Json::array();
        for (const Recipe& r : all_recipes())
            recipes.push_back({{"name", r.name},
                               {"purpose", r.purpose},
                               {"distilled", r.distilled},
                               {"stages", r.two_stages ? 2 : 1},
                               {"needs", r.needs()}});
        *json = copied(recipes);
    });
}

sdltx_status sdltx_tasks(char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json tasks = Json::array();
        for (const TaskRow& t : all_tasks())
            tasks.push_back({{"name", t.name}, {"purpose", t.purpose}, {"needs", t.needs}});
        *json = copied(tasks);
    });
}

sdltx_status sdltx_presets(char** json) {
    return guarded([&] {
        emptied(json, "json");
        Json presets = Json::array();
        for (const Preset& preset : all_presets()) {
            Json out = Json::object();
            for_each_value(preset, [&](const char* name, const auto& value) { out[name] = value; });
            presets.push_back(std::move(out));
        }
        *json = copied(presets);
    });
}

sdltx_status sdltx_convert_options_init(sdltx_convert_options* options, uint32_t version) {
    return guarded([&] {
        result(options, "convert options") = {};
        check_version(version, SDLTX_CONVERT_OPTIONS_VERSION, "convert options");
        options->version = version;
    });
}

sdltx_status sdltx_convert(const char* const* paths, size_t num_paths, const char* output,
                           const sdltx_convert_options* options) {
    return guarded([&] { convert(model_paths(paths, num_paths), text(output, "output"), convert_options(options)); });
}
