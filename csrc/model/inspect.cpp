#include "inspect.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <unordered_set>

#include "base/json.h"
#include "names.h"
#include "networks.h"

namespace sdltx {

namespace {

constexpr size_t longest_metadata = 200;  // bytes

// "Q4_K", however the file spells it.
std::string type_name(const TensorInfo& t) {
    std::string name = t.dtype;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
    return name;
}

struct PartReport {
    int64_t tensors = 0, parameters = 0;
    uint64_t bytes = 0;
    std::map<std::string, std::pair<int64_t, uint64_t>> types;
};

std::string spelled(const Json& j) { return j.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string row_of(const TensorInfo& t, const char* part, size_t file) {
    return spelled({{"name", t.name},
                    {"stored_name", t.stored_name},
                    {"part", part},
                    {"file", file},
                    {"type", type_name(t)},
                    {"shape", t.shape},
                    {"bytes", t.nbytes}});
}

Json describe_file(const ModelFile& file, const std::string& kind) {
    Json metadata = Json::object();
    for (auto& [key, text] : file.texts())
        metadata[key] = text.size() > longest_metadata ? text.substr(0, longest_metadata) + "..." : text;
    return {{"path", file.path()},
            {"format", file.is_gguf() ? "gguf" : "safetensors"},
            {"kind", kind},
            {"bytes", file.map().size()},
            {"tensors", file.tensors().size()},
            {"metadata", metadata}};
}

// The parts in the order in which a run uses them, then what it does not use.
constexpr const char* order[] = {"text encoder",  "text projection", "duration head", "transformer",
                                 "video decoder", "audio decoder",   "vocoder",       "video encoder",
                                 "audio encoder", "tokenizer",       "vision tower",  "other"};

}  // namespace

std::string inspect(const std::vector<std::string>& paths) {
    Problems problems;
    const ModelFiles files(paths, ltx_naming(), &problems);
    Backend backend("cpu", false, 1, Offload::none);
    Workspace workspace(backend);
    const ModelConfig config = ModelConfig::load(files, &problems);
    const Networks networks(files, config, workspace, &problems);
    ModelInfo info;
    attempt(&problems, [&] { info = describe(files, config); });

    Json out = {{"model", nullptr},
                {"version", nullptr},
                {"distilled", nullptr},
                {"preset", nullptr},
                {"note", nullptr},
                {"missing", Json::array()},
                {"files", Json::array()},
                {"parts", Json::array()},
                {"unexpected", Json::array()},
                {"doubts", doubts(files, config)}};
    if (config.transformer && info.preset) {
        out.update({{"model", info.name},
                    {"version", info.version},
                    {"distilled", info.distilled},
                    {"preset", info.preset->name}});
        if (!info.note.empty()) out["note"] = info.note;
    }
    std::string tensors;  // as text: there are many
    std::map<std::string, PartReport> parts;
    for (auto& file : files.files()) {
        for (auto& t : file->tensors()) {
            const char* part = owner_of(t.name).part;
            PartReport& report = parts[part];
            ++report.tensors;
            report.parameters += t.elements();
            report.bytes += t.nbytes;
            auto& [count, bytes] = report.types[type_name(t)];
            ++count;
            bytes += t.nbytes;
            tensors += (tensors.empty() ? "" : ",") + row_of(t, part, out["files"].size());
        }
        out["files"].push_back(describe_file(*file, "model"));
    }
    for (auto& addition : files.additions()) out["files"].push_back(describe_file(*addition.file, addition.kind));
    for (const char* name : order) {
        const auto it = parts.find(name);
        if (it == parts.end()) continue;
        const PartReport& r = it->second;
        Json types = Json::object();
        for (auto& [type, of] : r.types) types[type] = {of.first, of.second};
        const bool used = std::any_of(networks.parts.begin(), networks.parts.end(),
                                      [&](Part part) { return std::string(name) == name_of(part); }) ||
                          (name == std::string("tokenizer") && networks.tokenizer);
        out["parts"].push_back({{"part", name},
                                {"tensors", r.tensors},
                                {"parameters", r.parameters},
                                {"bytes", r.bytes},
                                {"types", types},
                                {"used", used}});
    }
    for (Part part : all_parts)
        if (part != Part::audio_encoder && part != Part::video_encoder && part != Part::duration_head &&
            !parts.count(name_of(part)))
            out["missing"].push_back(name_of(part));
    for (const TensorInfo* t : networks.unexpected) out["unexpected"].push_back(t->name);
    out["problems"] = problems;
    std::string text = spelled(out);
    text.pop_back();
    return text + ",\"tensors\":[" + tensors + "]}";
}

}  // namespace sdltx
