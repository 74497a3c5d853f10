#include "model_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "backend.h"
#include "encodings.h"
#include "json.h"

namespace fs = std::filesystem;

namespace sdltx {

bool ends_with(const std::string& name, const std::string& tail) {
    return name.size() >= tail.size() && name.compare(name.size() - tail.size(), tail.size(), tail) == 0;
}

int64_t TensorInfo::elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

std::unique_ptr<ModelFile> open_gguf(std::unique_ptr<MappedFile> map);
std::unique_ptr<ModelFile> open_safetensors(std::unique_ptr<MappedFile> map);

// A file, and why it is looked at: by its own name, or on account of a folder.
enum class Source { named, listed, folder, beside_index };
struct Given {
    std::string path;
    Source source;
};

namespace {

// What a file is that is no model: the usual mistakes of a download.
std::string what_else(const uint8_t* p, size_t size) {
    const std::string start(reinterpret_cast<const char*>(p), std::min<size_t>(size, 64));
    if (start.rfind("version https://git-lfs", 0) == 0)
        return "is a Git LFS pointer in place of the file; fetch it with 'git lfs pull'";
    if (const size_t at = start.find_first_not_of(" \t\r\n\xEF\xBB\xBF"); at != std::string::npos && start[at] == '<')
        return "is a web page and not a model; the download was refused, perhaps for want of a login";
    if (std::all_of(start.begin(), start.end(), [](char c) { return c == 0; }))
        return "begins with zeros; the download is not complete";
    return "is neither a safetensors nor a GGUF file; check that the download is whole";
}

// Downloads that reserve the room of a file first leave zeros where they stopped. Looks at the beginnings of large
// tensors all over the file; several in a row without a value are no weights.
void check_holes(const ModelFile& file) {
    constexpr size_t samples = 32, page = 4096, in_a_row = 8;
    std::vector<const TensorInfo*> large;
    for (auto& t : file.tensors())
        if (t.nbytes >= (size_t{64} << 10)) large.push_back(&t);
    std::sort(large.begin(), large.end(), [](auto* a, auto* b) { return a->data < b->data; });
    const size_t count = std::min(samples, large.size());
    size_t zeros = 0;
    for (size_t i = 0; i < count; ++i) {
        const TensorInfo& t = *large[i * (large.size() - 1) / std::max<size_t>(count - 1, 1)];
        const bool empty = std::all_of(t.data, t.data + page, [](uint8_t b) { return b == 0; });
        zeros = empty ? zeros + 1 : 0;
        if (zeros >= std::min(in_a_row, count) && count > 1)
            throw Error(ErrorCode::model_file, "[" + file.path() + "] holds zeros in place of weights, such as '" +
                                                   t.stored_name + "'; the download is not complete");
    }
}

}  // namespace

std::unique_ptr<ModelFile> ModelFile::open(const std::string& path) {
    auto map = std::make_unique<MappedFile>(path);
    const uint8_t* p = map->data();
    std::unique_ptr<ModelFile> file;
    if (map->size() >= 24 && std::memcmp(p, "GGUF", 4) == 0) {
        file = open_gguf(std::move(map));
    } else if (map->size() >= 10 && p[8] == '{') {
        file = open_safetensors(std::move(map));
    } else if (map->size() >= 2 && ((p[0] == 'P' && p[1] == 'K') || p[0] == 0x80)) {
        throw Error(
            ErrorCode::model_file,
            "[" + path + "] is a pickled PyTorch checkpoint, which could run code; give a .safetensors or .gguf file");
    } else {
        throw Error(ErrorCode::model_file, "[" + path + "] " + what_else(p, map->size()));
    }
    for (auto& t : file->tensors_) t.file = file.get();
    check_holes(*file);
    return file;
}

std::optional<std::string> ModelFile::metadata(const std::string& key) const {
    auto it = text_.find(key);
    if (it == text_.end()) return std::nullopt;
    return it->second;
}

const GgufValue* ModelFile::value(const std::string& key) const {
    auto it = values_.find(key);
    return it == values_.end() ? nullptr : &it->second;
}

namespace {

// The names of the single-file checkpoint and of Hugging Face's Gemma 3 are the canonical ones.
constexpr const char* canonical[] = {
    "model.diffusion_model.", "vae.", "audio_vae.", "vocoder.", "text_embedding_projection.", "language_model.model."};

// A file that holds `probe` (of rank `rank`; 0 = any) has its names starting with `strip` moved below `add`.
struct PrefixRule {
    const char* probe;
    size_t rank;
    const char* strip;
    const char* add;
};

constexpr PrefixRule prefix_rules[] = {
    {"diffusion_model.patchify_proj.weight", 0, "diffusion_model.", "model.diffusion_model."},
    {"patchify_proj.weight", 0, "", "model.diffusion_model."},
    {"video_embeddings_connector.learnable_registers", 0, "", "model.diffusion_model."},
    {"embeddings_connector.learnable_registers", 0, "", "model.diffusion_model."},
    {"decoder.conv_in.conv.weight", 5, "", "vae."},
    {"decoder.conv_in.conv.weight", 4, "", "audio_vae."},
    {"model.language_model.embed_tokens.weight", 0, "model.language_model.", "language_model.model."},
    {"model.embed_tokens.weight", 0, "model.", "language_model.model."},
    {"embed_tokens.weight", 0, "", "language_model.model."},
};

// llama.cpp's names of Gemma 3 tensors inside `blk.N.`, and Hugging Face's inside `layers.N.`.
struct Rename {
    const char* from;
    const char* to;
};

constexpr Rename llama_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_output", "self_attn.o_proj"},
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};

bool starts_with(const std::string& s, const char* prefix) { return s.rfind(prefix, 0) == 0; }

std::string from_llama(const std::string& name) {
    if (name == "token_embd.weight") return "language_model.model.embed_tokens.weight";
    if (name == "output_norm.weight") return "language_model.model.norm.weight";
    if (!starts_with(name, "blk.")) return name;
    const size_t dot = name.find('.', 4), tail = name.rfind(".weight");
    if (dot == std::string::npos || tail == std::string::npos || tail <= dot) return name;
    const std::string part = name.substr(dot + 1, tail - dot - 1);
    for (auto& r : llama_names)
        if (part == r.from) return "language_model.model.layers." + name.substr(4, dot - 4) + "." + r.to + ".weight";
    return name;
}

// Some repositories call the connector of the video stream just that.
void rename_connector(TensorInfo& t) {
    constexpr const char* alias = "model.diffusion_model.embeddings_connector.";
    if (starts_with(t.name, alias))
        t.name = "model.diffusion_model.video_embeddings_connector." + t.name.substr(std::strlen(alias));
}

void normalise_names(ModelFile& file) {
    auto holds = [&](const char* probe, size_t rank) {
        return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const TensorInfo& t) {
            return t.stored_name == probe && (rank == 0 || t.shape.size() == rank);
        });
    };
    if (holds("token_embd.weight", 0)) {
        for (auto& t : file.tensors()) t.name = from_llama(t.stored_name);
        return;
    }
    // The vocoder alone, in folders of one model per part: of its names only the outermost "vocoder." was taken away.
    if (holds("bwe_generator.conv_pre.weight", 0) || holds("conv_pre.weight", 0)) {
        for (auto& t : file.tensors()) t.name = "vocoder." + t.stored_name;
        return;
    }
    std::vector<const PrefixRule*> rules;
    for (auto& r : prefix_rules)
        if (holds(r.probe, r.rank)) rules.push_back(&r);
    for (auto& t : file.tensors()) {
        if (std::any_of(std::begin(canonical), std::end(canonical),
                        [&](auto* c) { return starts_with(t.stored_name, c); }))
            continue;
        for (auto* r : rules)
            if (starts_with(t.stored_name, r->strip)) {
                t.name = r->add + t.stored_name.substr(std::strlen(r->strip));
                break;
            }
    }
    for (auto& t : file.tensors()) rename_connector(t);
}

// What a file is that holds no part of a model but changes one or comes after it; empty for all others.
std::string kind_of_addition(const ModelFile& file) {
    if (file.metadata("general.architecture") == "clip" || file.metadata("general.type") == "mmproj")
        return "the eyes of a text model (mmproj)";
    bool initial_conv = false, upsampler = false, sound = false;
    for (auto& t : file.tensors()) {
        for (const char* mark : {".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".lora.down.", ".lora.up.",
                                 ".hada_w1", ".lokr_w1", ".oft_blocks", ".dora_scale"})
            if (t.stored_name.find(mark) != std::string::npos) return "a LoRA";
        for (const char* tail : {".lora_A", ".lora_B", ".diff", ".diff_b", ".w_norm"})
            if (ends_with(t.stored_name, tail)) return "a LoRA";
        sound = sound || starts_with(t.stored_name, "velocity_model.");
        initial_conv = initial_conv || t.stored_name == "initial_conv.weight";
        upsampler = upsampler || starts_with(t.stored_name, "upsampler.");
    }
    if (sound) return "a model that makes sound alone";
    return initial_conv && upsampler ? "a latent upscaler" : "";
}

// A tensor that stands for a part: a model has one of each.
struct Part {
    const char* probe;
    const char* name;
};

constexpr Part parts[] = {
    {"model.diffusion_model.patchify_proj.weight", "transformer"},
    {"vae.decoder.conv_in.conv.weight", "video VAE"},
    {"audio_vae.decoder.conv_in.conv.weight", "audio VAE"},
    {"vocoder.vocoder.conv_pre.weight", "vocoder"},
    {"vocoder.conv_pre.weight", "vocoder"},
    {"language_model.model.embed_tokens.weight", "text encoder"},
};

std::vector<fs::path> entries_of(const fs::path& folder, std::error_code& problem) {
    std::vector<fs::path> entries;
    for (auto it = fs::directory_iterator(folder, problem); !problem && it != fs::directory_iterator();
         it.increment(problem))
        entries.push_back(it->path());
    std::sort(entries.begin(), entries.end());
    return entries;
}

void add_shards(const fs::path& index_path, std::set<std::string>& files) {
    const MappedFile map(index_path.string());
    const Json index = parse_json_value({reinterpret_cast<const char*>(map.data()), map.size()}, index_path.string());
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
        throw Error(ErrorCode::model_file, "[" + index_path.string() + "] is not an index of safetensors shards");
    for (auto& [tensor, file] : index["weight_map"].items()) {
        if (!file.is_string() || file.get_ref<const std::string&>().find('/') != std::string::npos)
            throw Error(ErrorCode::model_file, "[" + index_path.string() + "] names a shard outside its folder");
        files.insert((index_path.parent_path() / file.get_ref<const std::string&>()).string());
    }
}

// The model files of one folder, each list in a fixed order; what an index lists has to be there.
struct FolderFiles {
    std::vector<std::string> chosen;        // listed by an index, or all of a folder without one
    std::vector<std::string> beside_index;  // not listed
    bool by_index;
};

FolderFiles files_of(const fs::path& folder, std::error_code& problem) {
    std::set<std::string> listed, found;
    for (auto& path : entries_of(folder, problem)) {
        const std::string name = path.filename().string(), ext = path.extension().string();
        if (name.front() == '.') continue;  // macOS leaves "._model.safetensors" beside a copied file
        if (name.find("mmproj") != std::string::npos) continue;  // the eyes of a text model
        if (ends_with(name, ".index.json"))
            add_shards(path, listed);
        else if (ext == ".safetensors" || ext == ".gguf")
            found.insert(path.string());
    }
    if (listed.empty()) return {{found.begin(), found.end()}, {}, false};
    FolderFiles files{{listed.begin(), listed.end()}, {}, true};
    for (auto& f : found)
        if (!listed.count(f)) files.beside_index.push_back(f);
    return files;
}

// The cache of Hugging Face keeps the files of a model in snapshots/<commit>; refs/main says which is the latest.
fs::path snapshot_of(const fs::path& folder) {
    std::error_code problem;
    const fs::path snapshots = folder / "snapshots";
    if (!fs::is_directory(snapshots, problem)) return folder;
    std::string commit;
    std::ifstream(folder / "refs" / "main") >> commit;
    if (!commit.empty() && fs::is_directory(snapshots / commit, problem)) return snapshots / commit;
    const auto entries = entries_of(snapshots, problem);
    return entries.empty() ? folder : entries.back();
}

// A model file of a folder that cannot be read, such as a download that another program has left: none of ours, unless
// a part turns out to be missing.
std::unique_ptr<ModelFile> open_or_skip(const std::string& path, bool needed) {
    try {
        return ModelFile::open(path);
    } catch (const Error& e) {
        if (needed) throw;
        log(30, std::string("[load] not used: ") + e.what());
        return nullptr;
    }
}

// The files that `paths` name or contain, those beside an index last; `folders` receives where they lie.
std::vector<Given> given_files(const std::vector<std::string>& paths, std::vector<std::string>& folders) {
    std::vector<Given> names, beside;
    auto add_folder = [&](const fs::path& p) {
        const std::string folder = p.empty() ? "." : p.string();
        if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
    };
    for (auto& path : paths) {
        std::error_code problem;
        if (!fs::is_directory(path, problem)) {
            names.push_back({path, Source::named});
            add_folder(fs::path(path).parent_path());
            continue;
        }
        const fs::path root = snapshot_of(path);
        std::vector<fs::path> searched{root};
        for (auto& entry : entries_of(root, problem))
            if (std::error_code ignored; fs::is_directory(entry, ignored)) searched.push_back(entry);
        if (problem) throw Error(ErrorCode::model_file, "[" + path + "] cannot read the folder: " + problem.message());
        const size_t before = names.size();
        for (auto& folder : searched) {
            std::error_code unreadable;  // such as lost+found of a disk for models
            const auto found = files_of(folder, unreadable);
            if (folder != searched.front() && found.chosen.empty()) continue;
            add_folder(folder);
            for (auto& file : found.chosen) names.push_back({file, found.by_index ? Source::listed : Source::folder});
            for (auto& file : found.beside_index) beside.push_back({file, Source::beside_index});
        }
        if (names.size() == before)
            throw Error(ErrorCode::model_file, "[" + path + "] the folder holds no .safetensors or .gguf file");
    }
    names.insert(names.end(), beside.begin(), beside.end());
    return names;
}

}  // namespace

ModelFiles::~ModelFiles() = default;

ModelFiles::ModelFiles(const std::vector<std::string>& paths, Problems* problems) {
    std::vector<Given> given;
    attempt(problems, [&] { given = given_files(paths, folders_); });
    std::unordered_set<std::string> opened, held;
    for (auto& one : given) {
        std::error_code problem;
        const auto real = fs::weakly_canonical(one.path, problem).string();
        if (!opened.insert(problem ? one.path : real).second) continue;  // the same file given twice
        const bool needed =
            one.source == Source::named || one.source == Source::listed || (files_.empty() && &one == &given.back());
        attempt(problems, [&] { add(one, needed, held); });
    }
    for (auto& file : files_)
        for (auto& t : file->tensors()) {
            auto [it, fresh] = by_name_.emplace(t.name, &t);
            if (!fresh) duplicates_.emplace(t.name, std::make_pair(it->second->file->path(), file->path()));
        }
    for (auto& part : parts)
        if (auto* two = duplicate(part.probe))
            attempt(problems, [&] {
                throw Error(ErrorCode::model_mismatch, "[load] " + two->first + " and " + two->second +
                                                           " both hold a " + part.name + "; give one of them");
            });
}

namespace {

// The file that a folder was given for.
std::string one_file_of(const std::string& path) {
    std::error_code problem;
    if (!fs::is_directory(path, problem)) return path;
    const fs::path adapter = fs::path(path) / "adapter_model.safetensors";
    if (fs::is_regular_file(adapter, problem)) return adapter.string();
    const FolderFiles found = files_of(path, problem);
    if (found.chosen.size() == 1) return found.chosen.front();
    throw Error(ErrorCode::model_file, "[" + path + "] is a folder with " + std::to_string(found.chosen.size()) +
                                           " .safetensors and .gguf files; give the one that is meant");
}

}  // namespace

ModelFiles::ModelFiles(const std::string& path, const std::string& kind) {
    files_.push_back(ModelFile::open(one_file_of(path)));
    const std::string found = kind_of_addition(*files_.front());
    if (found != kind)
        throw Error(ErrorCode::model_mismatch, "[" + path + "] is " + (found.empty() ? "a part of a model" : found) +
                                                   " and not " + kind + "; give the right file");
    for (auto& t : files_.front()->tensors()) by_name_.emplace(t.name, &t);
}

void ModelFiles::add(const Given& given, bool needed, std::unordered_set<std::string>& held) {
    auto file = open_or_skip(given.path, needed);
    if (!file) return;
    if (const std::string kind = kind_of_addition(*file); !kind.empty()) {
        additions_.push_back({std::move(file), kind});
        if (given.source == Source::named)
            throw Error(ErrorCode::model_mismatch, "[" + given.path + "] is " + kind + ", not a part of a model; " +
                                                       (kind == "a LoRA"              ? "give it as a LoRA"
                                                        : kind == "a latent upscaler" ? "give it as the upscaler"
                                                                                      : "leave it out"));
        log(20, "[load] not used: " + given.path + ", which is " + kind);
        return;
    }
    normalise_names(*file);
    attach_encodings(*file);
    // Beside shards may lie another model, such as the one they encode prompts for, or an older copy of theirs.
    if (given.source == Source::beside_index &&
        std::any_of(file->tensors().begin(), file->tensors().end(), [&](auto& t) { return held.count(t.name); })) {
        log(20, "[load] not used: " + given.path + ", which the index beside it does not list");
        return;
    }
    for (auto& t : file->tensors()) held.insert(t.name);
    files_.push_back(std::move(file));
}

std::vector<std::string> ModelFiles::unused_files() const {
    std::vector<std::string> paths;
    for (auto& file : files_)
        if (std::none_of(file->tensors().begin(), file->tensors().end(), [](auto& t) { return t.used; }))
            paths.push_back(file->path());
    return paths;
}

std::vector<std::string> ModelFiles::unused_tensors() const {
    std::vector<std::string> names;
    for (auto& file : files_)
        for (auto& t : file->tensors())
            if (!t.used) names.push_back(t.name);
    return names;
}

const TensorInfo* ModelFiles::find(const std::string& name) const {
    auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : it->second;
}

const std::pair<std::string, std::string>* ModelFiles::duplicate(const std::string& name) const {
    auto it = duplicates_.find(name);
    return it == duplicates_.end() ? nullptr : &it->second;
}

bool ModelFiles::has_prefix(const std::string& prefix) const {
    return std::any_of(by_name_.begin(), by_name_.end(), [&](auto& kv) { return kv.first.rfind(prefix, 0) == 0; });
}

std::optional<std::string> ModelFiles::metadata(const std::string& key, const std::string& prefix) const {
    std::vector<std::string> values = all_metadata(key, prefix);
    return values.empty() ? std::nullopt : std::make_optional(std::move(values.front()));
}

std::vector<std::string> ModelFiles::all_metadata(const std::string& key, const std::string& prefix) const {
    std::vector<std::string> values, elsewhere;
    for (auto& file : files_)
        if (auto value = file->metadata(key)) {
            const bool holds = std::any_of(file->tensors().begin(), file->tensors().end(),
                                           [&](auto& t) { return t.name.rfind(prefix, 0) == 0; });
            (holds ? values : elsewhere).push_back(std::move(*value));
        }
    values.insert(values.end(), elsewhere.begin(), elsewhere.end());
    return values;
}

}  // namespace sdltx
