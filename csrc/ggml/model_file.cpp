#include "model_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

namespace fs = std::filesystem;

namespace sdltx {

std::unique_ptr<ModelFile> open_gguf(std::unique_ptr<MappedFile> map);
std::unique_ptr<ModelFile> open_safetensors(std::unique_ptr<MappedFile> map);

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
        throw Error(ErrorCode::model_file,
                    "[" + path + "] is neither a safetensors nor a GGUF file; check that the download is whole");
    }
    for (auto& t : file->tensors_) t.file = file.get();
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
}

// The model files of one folder, in a fixed order. With an index json only the shards it lists are taken.
std::vector<std::string> files_of(const fs::path& folder) {
    std::set<std::string> shards, found;
    for (auto& entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string(), ext = entry.path().extension().string();
        if (name.size() > 11 && name.compare(name.size() - 11, 11, ".index.json") == 0) {
            auto map = MappedFile(entry.path().string());
            auto index = nlohmann::json::parse(map.data(), map.data() + map.size(), nullptr, false);
            if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
                throw Error(ErrorCode::model_file,
                            "[" + entry.path().string() + "] is not an index of safetensors shards");
            for (auto& [tensor, file] : index["weight_map"].items()) {
                if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
                    throw Error(ErrorCode::model_file,
                                "[" + entry.path().string() + "] names a shard outside its folder");
                shards.insert((folder / file.get<std::string>()).string());
            }
        } else if (ext == ".safetensors" || ext == ".gguf") {
            found.insert(entry.path().string());
        }
    }
    const auto& chosen = shards.empty() ? found : shards;
    return {chosen.begin(), chosen.end()};
}

}  // namespace

ModelFiles::ModelFiles(const std::vector<std::string>& paths) {
    std::vector<std::string> names;
    auto add_folder = [&](const fs::path& p) {
        const std::string folder = p.empty() ? "." : p.string();
        if (std::find(folders_.begin(), folders_.end(), folder) == folders_.end()) folders_.push_back(folder);
    };
    for (auto& path : paths) {
        std::error_code ec;
        if (!fs::is_directory(path, ec)) {
            names.push_back(path);
            add_folder(fs::path(path).parent_path());
            continue;
        }
        std::vector<fs::path> folders{fs::path(path)};
        for (auto& entry : fs::directory_iterator(path, ec))
            if (entry.is_directory(ec)) folders.push_back(entry.path());
        std::sort(folders.begin() + 1, folders.end());
        const size_t before = names.size();
        for (auto& folder : folders) {
            const auto found = files_of(folder);
            if (folder != folders.front() && found.empty()) continue;
            add_folder(folder);
            names.insert(names.end(), found.begin(), found.end());
        }
        if (names.size() == before)
            throw Error(ErrorCode::model_file, "[" + path + "] the folder holds no .safetensors or .gguf file");
    }
    std::set<std::string> opened;
    for (auto& name : names) {
        std::error_code ec;
        const auto real = fs::weakly_canonical(name, ec).string();
        if (!opened.insert(ec ? name : real).second) continue;  // the same file given twice
        files_.push_back(ModelFile::open(name));
        normalise_names(*files_.back());
    }
    for (auto& file : files_)
        for (auto& t : file->tensors()) {
            auto [it, fresh] = by_name_.emplace(t.name, &t);
            if (!fresh) duplicates_.emplace(t.name, std::make_pair(it->second->file->path(), file->path()));
        }
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
    std::optional<std::string> elsewhere;
    for (auto& file : files_) {
        auto value = file->metadata(key);
        if (!value) continue;
        for (auto& t : file->tensors())
            if (t.name.rfind(prefix, 0) == 0) return value;
        if (!elsewhere) elsewhere = value;
    }
    return elsewhere;
}

}  // namespace sdltx
