#include "model_folders.h"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <new>
#include <set>

#include "base/json.h"
#include "base/log.h"
#include "model_file.h"

namespace fs = std::filesystem;

namespace sdltx {

namespace {

std::vector<fs::path> entries_of(const fs::path& folder, std::error_code& problem) {
    std::vector<fs::path> entries;
    // Not by the standard library, whose iterator ends the process when it has no memory.
    const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(folder.c_str()), ::closedir);
    errno = open ? 0 : errno;
    for (const dirent* entry; open && (entry = ::readdir(open.get()));)
        if (const std::string name = entry->d_name; name != "." && name != "..") entries.push_back(folder / name);
    if (errno == ENOMEM) throw std::bad_alloc();
    if (errno != 0) problem = std::error_code(errno, std::generic_category());
    std::sort(entries.begin(), entries.end());
    return entries;
}

void add_shards(const fs::path& index_path, std::map<std::string, std::string>& files) {
    const Json index = parse_json_file(index_path.string());
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
        throw Error(ErrorCode::model_file, "[" + index_path.string() + "] is not an index of safetensors shards");
    for (auto& [tensor, file] : index["weight_map"].items()) {
        if (!file.is_string() || file.get_ref<const std::string&>().find('/') != std::string::npos)
            throw Error(ErrorCode::model_file, "[" + index_path.string() + "] names a shard outside its folder");
        files.emplace((index_path.parent_path() / file.get_ref<const std::string&>()).string(), index_path.string());
    }
}

// NAME-00002-of-00003.EXT
struct Numbered {
    std::string before, after;  // the number
    int count;
    std::string name(int number) const {
        char digits[16];
        std::snprintf(digits, sizeof(digits), "%05d", number);
        return before + digits + after;
    }
};

std::optional<Numbered> numbered(const std::string& path) {
    constexpr size_t digits = 5;
    const std::string of = "-of-";
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos || (path.substr(dot) != ".safetensors" && path.substr(dot) != ".gguf") ||
        dot < 1 + digits + of.size() + digits)
        return std::nullopt;
    const size_t count_at = dot - digits, number_at = count_at - of.size() - digits;
    if (path.compare(count_at - of.size(), of.size(), of) != 0 || path[number_at - 1] != '-') return std::nullopt;
    const auto read = [&](size_t at) {
        int value = 0;
        for (size_t i = at; i < at + digits; ++i) {
            if (path[i] < '0' || path[i] > '9') return 0;
            value = value * 10 + (path[i] - '0');
        }
        return value;
    };
    const int number = read(number_at), count = read(count_at);
    if (number < 1 || number > count) return std::nullopt;
    return Numbered{path.substr(0, number_at), path.substr(number_at + digits), count};
}

std::string set_of(const std::string& path) {
    const auto parts = numbered(path);
    return parts ? parts->before + parts->after : path;
}

// The other parts of a file that is named, in their order.
std::vector<Given> with_other_parts(const std::string& path) {
    const auto parts = numbered(path);
    if (!parts) return {{path, Source::named, path}};
    std::vector<Given> all;
    for (int i = 1; i <= parts->count; ++i) {
        const std::string part = parts->name(i);
        std::error_code problem;
        if (part != path && !fs::exists(part, problem))
            throw Error(ErrorCode::model_file, "[" + path + "] is one of " + std::to_string(parts->count) +
                                                   " parts, and " + part + " is not there; download all of them");
        all.push_back({part, Source::named, set_of(path)});
    }
    return all;
}

// The model files of one folder, each list in a fixed order; what an index lists has to be there.
struct FolderFiles {
    std::vector<Given> chosen;        // listed by an index, or all of a folder without one
    std::vector<Given> beside_index;  // not listed
};

FolderFiles files_of(const fs::path& folder, std::error_code& problem) {
    std::map<std::string, std::string> listed;  // and by which index
    std::set<std::string> found;
    for (auto& path : entries_of(folder, problem)) {
        const std::string name = path.filename().string(), ext = path.extension().string();
        if (name.front() == '.') continue;  // macOS leaves "._model.safetensors" beside a copied file
        if (name.find("mmproj") != std::string::npos) continue;  // the eyes of a text model
        if (ends_with(name, ".safetensors.index.json"))
            add_shards(path, listed);
        else if (ext == ".safetensors" || ext == ".gguf")
            found.insert(path.string());
    }
    FolderFiles files;
    for (auto& [file, index] : listed) files.chosen.push_back({file, Source::listed, index});
    for (auto& file : found)
        if (listed.empty())
            files.chosen.push_back({file, Source::folder, set_of(file)});
        else if (!listed.count(file))
            files.beside_index.push_back({file, Source::beside_index, set_of(file)});
    return files;
}

// Says which parts of a model that is split are not in its folder, once for each set.
void tell_missing_parts(const std::string& path, const std::vector<Given>& files) {
    const auto parts = numbered(path);
    if (!parts) return;
    std::string missing;
    for (int i = 1, before = 0; i <= parts->count; ++i) {
        const std::string part = parts->name(i);
        if (std::none_of(files.begin(), files.end(), [&](const Given& f) { return f.path == part; })) {
            if (missing.size() < 200) missing += (missing.empty() ? "" : ", ") + std::to_string(i);
        } else if (before++ == 0 && part != path) {
            return;  // told with the first part that is there
        }
    }
    if (!missing.empty())
        log(30, "[load] " + path + " is one of " + std::to_string(parts->count) +
                    " parts, of which these are not there: " + missing);
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

}  // namespace

std::vector<Given> given_files(const std::vector<std::string>& paths, std::vector<std::string>& folders) {
    std::vector<Given> names, beside;
    auto add_folder = [&](const fs::path& p) {
        const std::string folder = p.empty() ? "." : p.string();
        if (std::find(folders.begin(), folders.end(), folder) == folders.end()) folders.push_back(folder);
    };
    for (auto& path : paths) {
        std::error_code problem;
        if (!fs::is_directory(path, problem)) {
            if (ends_with(path, ".safetensors.index.json")) {
                std::map<std::string, std::string> listed;
                add_shards(path, listed);
                for (auto& [file, index] : listed) names.push_back({file, Source::listed, index});
            } else {
                for (Given& part : with_other_parts(path)) names.push_back(std::move(part));
            }
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
            for (const Given& file : found.chosen) tell_missing_parts(file.path, found.chosen);
            names.insert(names.end(), found.chosen.begin(), found.chosen.end());
            beside.insert(beside.end(), found.beside_index.begin(), found.beside_index.end());
        }
        if (names.size() == before)
            throw Error(ErrorCode::model_file, "[" + path + "] the folder holds no .safetensors or .gguf file");
    }
    names.insert(names.end(), beside.begin(), beside.end());
    return names;
}

std::string one_file_of(const std::string& path) {
    if (const auto parts = numbered(path); parts && parts->count > 1)
        throw Error(ErrorCode::model_file,
                    "[" + path + "] is one of " + std::to_string(parts->count) + " parts; give the whole in one file");
    std::error_code problem;
    if (!fs::is_directory(path, problem)) return path;
    const fs::path adapter = fs::path(path) / "adapter_model.safetensors";
    if (fs::is_regular_file(adapter, problem)) return adapter.string();
    const FolderFiles found = files_of(path, problem);
    if (found.chosen.size() == 1) return found.chosen.front().path;
    throw Error(ErrorCode::model_file, "[" + path + "] is a folder with " + std::to_string(found.chosen.size()) +
                                           " .safetensors and .gguf files; give the one that is meant");
}

}  // namespace sdltx
