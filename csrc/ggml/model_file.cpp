#include "model_file.h"

#include <algorithm>
#include <cstring>

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
    check_mapped(file->map().data());
    return file;
}

void check_places(const ModelFile& file) {
    std::vector<const TensorInfo*> order;
    for (auto& t : file.tensors()) order.push_back(&t);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
        return a->data != b->data ? a->data < b->data : a->nbytes < b->nbytes;  // an empty tensor takes no place
    });
    for (size_t i = 1; i < order.size(); ++i)
        if (order[i - 1]->data + order[i - 1]->nbytes > order[i]->data)
            throw Error(ErrorCode::model_file, "[" + file.path() + "] tensors '" + order[i - 1]->name + "' and '" +
                                                   order[i]->name + "' overlap");
}

std::optional<std::string> ModelFile::metadata(const std::string& key) const {
    auto it = text_.find(key);
    if (it != text_.end()) return it->second;
    return first_ ? first_->metadata(key) : std::nullopt;
}

const GgufValue* ModelFile::value(const std::string& key) const {
    auto it = values_.find(key);
    if (it != values_.end()) return &it->second;
    return first_ ? first_->value(key) : nullptr;
}

}  // namespace sdltx
