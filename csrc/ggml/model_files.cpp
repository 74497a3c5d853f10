#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "encodings.h"
#include "model_file.h"
#include "model_folders.h"

namespace fs = std::filesystem;

namespace sdltx {

namespace {

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

}  // namespace

ModelFiles::~ModelFiles() = default;

ModelFiles::ModelFiles(const std::vector<std::string>& paths, const Naming& naming, Problems* problems) {
    std::vector<Given> given;
    attempt(problems, [&] { given = given_files(paths, folders_); });
    std::unordered_set<std::string> seen;
    std::vector<Set> sets;
    for (auto& one : given) {
        std::error_code problem;
        const auto real = fs::weakly_canonical(one.path, problem).string();
        if (!seen.insert(problem ? one.path : real).second) continue;  // the same file given twice
        const bool needed =
            one.source == Source::named || one.source == Source::listed || (sets.empty() && &one == &given.back());
        attempt(problems, [&] { open(one, needed, naming, sets); });
    }
    std::unordered_set<std::string> held;
    for (Set& set : sets) attempt(problems, [&] { add(set, naming, held); });
    for (auto& file : files_)
        for (auto& t : file->tensors()) {
            auto [it, fresh] = by_name_.emplace(t.name, &t);
            if (!fresh) duplicates_.emplace(t.name, std::make_pair(it->second->file->path(), file->path()));
        }
    for (auto& probe : naming.parts)
        if (auto* two = duplicate(probe.tensor))
            attempt(problems, [&] {
                throw Error(ErrorCode::model_mismatch, "[load] " + two->first + " and " + two->second +
                                                           " both hold a " + probe.part + "; give one of them");
            });
}

ModelFiles::ModelFiles(const std::string& path, const std::string& kind, const Naming& naming) {
    files_.push_back(ModelFile::open(one_file_of(path)));
    const auto addition = naming.addition ? naming.addition(*files_.front()) : std::nullopt;
    const std::string found = addition ? addition->kind : "";
    if (found != kind)
        throw Error(ErrorCode::model_mismatch, "[" + path + "] is " + (found.empty() ? "a part of a model" : found) +
                                                   " and not " + kind + "; give the right file");
    for (auto& t : files_.front()->tensors()) by_name_.emplace(t.name, &t);
}

void ModelFiles::open(const Given& given, bool needed, const Naming& naming, std::vector<Set>& sets) {
    auto file = open_or_skip(given.path, needed);
    if (!file) return;
    if (const auto addition = naming.addition ? naming.addition(*file) : std::nullopt) {
        const std::string kind = addition->kind;
        additions_.push_back({std::move(file), kind});
        if (given.source == Source::named)
            throw Error(ErrorCode::model_mismatch,
                        "[" + given.path + "] is " + kind + ", not a part of a model; " + addition->advice);
        log(20, "[load] not used: " + given.path + ", which is " + kind);
        return;
    }
    auto set = std::find_if(sets.begin(), sets.end(), [&](const Set& s) { return s.name == given.set; });
    if (set == sets.end()) set = sets.insert(set, {given.set, given.source == Source::beside_index, {}});
    set->files.push_back(std::move(file));
}

void ModelFiles::add(Set& set, const Naming& naming, std::unordered_set<std::string>& held) {
    std::vector<ModelFile*> files;
    for (auto& file : set.files) {
        file->join(*set.files.front());
        files.push_back(file.get());
    }
    if (naming.normalise) naming.normalise(files);
    attach_encodings(files);
    const auto holds_what_is_there = [&](const ModelFile* file) {
        return std::any_of(file->tensors().begin(), file->tensors().end(), [&](auto& t) { return held.count(t.name); });
    };
    // Beside shards may lie another model, such as the one they encode prompts for, or an older copy of theirs.
    if (set.beside_index && std::any_of(files.begin(), files.end(), holds_what_is_there)) {
        for (ModelFile* file : files)
            log(20, "[load] not used: " + file->path() + ", which the index beside it does not list");
        return;
    }
    for (auto& file : set.files) {
        for (auto& t : file->tensors()) held.insert(t.name);
        files_.push_back(std::move(file));
    }
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
