#include "imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ggml/values.h"

namespace sdltx {

namespace {

constexpr std::string_view prefix = "model.diffusion_model.";

std::string bare(const std::string& name) { return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name; }

// Sums over `count` rows of inputs to means. Quantisers divide by them, so none is zero.
std::vector<float> means(std::vector<float> sums, double count, const std::string& path) {
    double total = 0;
    for (float& s : sums) {
        if (!std::isfinite(s) || s < 0)
            throw Error(ErrorCode::model_file, "[" + path + "] the imatrix holds values that are no means of squares");
        s = static_cast<float>(s / std::max(count, 1.0));
        total += s;
    }
    const float least = total > 0 ? static_cast<float>(1e-6 * total / static_cast<double>(sums.size())) : 1.0f;
    for (float& s : sums) s = std::max(s, least);
    return sums;
}

std::unordered_map<std::string, std::vector<float>> from_gguf(const std::string& path) {
    const auto file = ModelFile::open(path);
    std::unordered_map<std::string, const TensorInfo*> by_name;
    for (auto& t : file->tensors()) by_name.emplace(t.stored_name, &t);
    std::unordered_map<std::string, std::vector<float>> columns;
    const std::string sums = ".in_sum2", counts = ".counts";
    for (auto& t : file->tensors()) {
        if (!ends_with(t.stored_name, sums)) continue;
        const std::string name = t.stored_name.substr(0, t.stored_name.size() - sums.size());
        const auto count = by_name.find(name + counts);
        if (count == by_name.end() || count->second->elements() < 1)
            throw Error(ErrorCode::model_file, "[" + path + "] the imatrix has no counts for '" + name + "'");
        columns[bare(name)] = means(to_float(t).data, to_float(*count->second).data.front(), path);
    }
    if (columns.empty())
        throw Error(ErrorCode::model_file, "[" + path + "] is a GGUF but no imatrix: it holds no '.in_sum2' tensors");
    return columns;
}

// int32 entries, then for each: int32 length, name, int32 calls, int32 values, floats.
std::unordered_map<std::string, std::vector<float>> from_dat(const std::string& path) {
    const MappedFile map(path);
    size_t at = 0;
    const auto take = [&](size_t bytes) {
        if (bytes > map.size() - at)
            throw Error(ErrorCode::model_file, "[" + path + "] is no imatrix, or not a whole one");
        at += bytes;
        return map.data() + at - bytes;
    };
    const auto number = [&](int32_t least, int32_t most) {
        int32_t n;
        std::memcpy(&n, take(sizeof(n)), sizeof(n));
        if (n < least || n > most) throw Error(ErrorCode::model_file, "[" + path + "] is no imatrix");
        return n;
    };
    std::unordered_map<std::string, std::vector<float>> columns;
    for (int32_t left = number(1, 1 << 20); left > 0; --left) {
        const auto length = static_cast<size_t>(number(1, 1 << 10));
        const std::string name(reinterpret_cast<const char*>(take(length)), length);
        const int32_t calls = number(0, INT32_MAX);
        const auto count = static_cast<size_t>(number(1, 1 << 24));
        const uint8_t* stored = take(count * sizeof(float));
        std::vector<float> values(count);
        std::memcpy(values.data(), stored, count * sizeof(float));
        columns[bare(name)] = means(std::move(values), calls, path);
    }
    return columns;
}

}  // namespace

Imatrix Imatrix::load(const std::string& path) {
    Imatrix m;
    m.path_ = path;
    bool gguf = false;
    {
        const MappedFile map(path);
        gguf = map.size() >= 4 && std::memcmp(map.data(), "GGUF", 4) == 0;
    }
    m.columns_ = gguf ? from_gguf(path) : from_dat(path);
    return m;
}

const std::vector<float>* Imatrix::of(const TensorInfo& t) const {
    const auto it = columns_.find(bare(t.name));
    if (it == columns_.end()) return nullptr;
    if (t.shape.empty() || static_cast<int64_t>(it->second.size()) != t.shape.back())
        throw Error(ErrorCode::model_mismatch, "[" + path_ + "] the imatrix has " + std::to_string(it->second.size()) +
                                                   " values for '" + t.name + "', which is " + spell_shape(t.shape) +
                                                   "; it is of another model");
    return &it->second;
}

}  // namespace sdltx
