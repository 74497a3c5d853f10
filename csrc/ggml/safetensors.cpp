// The safetensors format: u64 header length, JSON header, tensor bytes.
#include <algorithm>
#include <cstring>

#include "base/json.h"
#include "model_file.h"

namespace sdltx {

namespace {

constexpr uint64_t max_header = 100'000'000;  // the limit of the reference implementation
constexpr size_t max_rank = 8;

struct Dtype {
    const char* name;
    ggml_type type;
    size_t size;
};

constexpr Dtype dtypes[] = {
    {"F32", GGML_TYPE_F32, 4},       {"F16", GGML_TYPE_F16, 2},       {"BF16", GGML_TYPE_BF16, 2},
    {"F64", GGML_TYPE_F64, 8},       {"I8", GGML_TYPE_I8, 1},         {"I16", GGML_TYPE_I16, 2},
    {"I32", GGML_TYPE_I32, 4},       {"I64", GGML_TYPE_I64, 8},       {"U8", GGML_TYPE_COUNT, 1},
    {"U16", GGML_TYPE_COUNT, 2},     {"U32", GGML_TYPE_COUNT, 4},     {"U64", GGML_TYPE_COUNT, 8},
    {"BOOL", GGML_TYPE_COUNT, 1},    {"F8_E4M3", GGML_TYPE_COUNT, 1}, {"F8_E5M2", GGML_TYPE_COUNT, 1},
    {"F8_E8M0", GGML_TYPE_COUNT, 1},
};

uint64_t as_size(const Json& j, const std::string& where) {
    if (!j.is_number_unsigned())
        throw Error(ErrorCode::model_file, where + " holds a value that is not a natural number");
    return j.get<uint64_t>();
}

TensorInfo read_entry(const std::string& name, const Json& entry, const uint8_t* data, uint64_t data_size,
                      const std::string& path) {
    if (constexpr size_t longest = 1 << 10; name.size() > longest)
        throw Error(ErrorCode::model_file, "[" + path + "] a tensor has a name of " + std::to_string(name.size()) +
                                               " bytes, such as '" + name.substr(0, 40) + "...'");
    const std::string where = "[" + path + "] tensor '" + name + "'";
    if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets") ||
        !entry["dtype"].is_string() || !entry["shape"].is_array() || !entry["data_offsets"].is_array() ||
        entry["data_offsets"].size() != 2)
        throw Error(ErrorCode::model_file, where + " is not described by dtype, shape and data_offsets");
    TensorInfo t{};
    t.name = t.stored_name = name;
    t.dtype = entry["dtype"].get<std::string>();
    if (constexpr size_t longest = 32; t.dtype.size() > longest) t.dtype.resize(longest);
    const Dtype* dtype = std::find_if(std::begin(dtypes), std::end(dtypes), [&](auto& d) { return t.dtype == d.name; });
    // What nobody needs may be of any type; what is needed is refused with its name.
    const bool known = dtype != std::end(dtypes);
    t.type = known ? dtype->type : GGML_TYPE_COUNT;
    if (entry["shape"].size() > max_rank) throw Error(ErrorCode::model_file, where + " has more than 8 dimensions");
    uint64_t bytes = known ? dtype->size : 1;
    for (auto& d : entry["shape"]) {
        const uint64_t n = as_size(d, where);
        if (n > (uint64_t{1} << 40) || (n && bytes > (uint64_t{1} << 62) / n))
            throw Error(ErrorCode::model_file, where + " is larger than any file");
        bytes *= n;
        t.shape.push_back(static_cast<int64_t>(n));
    }
    const uint64_t begin = as_size(entry["data_offsets"][0], where), end = as_size(entry["data_offsets"][1], where);
    if (begin > end || end > data_size)
        throw Error(ErrorCode::model_file,
                    where + " lies beyond the end of the file; the file is truncated, download it again");
    if (!known) bytes = end - begin;
    if (end - begin != bytes)
        throw Error(ErrorCode::model_file, where + " has " + std::to_string(end - begin) +
                                               " bytes where its shape and dtype need " + std::to_string(bytes));
    t.data = data + begin;
    t.nbytes = bytes;
    return t;
}

}  // namespace

std::unique_ptr<ModelFile> open_safetensors(std::unique_ptr<MappedFile> map) {
    auto file = std::make_unique<ModelFile>();
    file->map_ = std::move(map);
    const std::string& path = file->path();
    const uint8_t* base = file->map_->data();
    const uint64_t size = file->map_->size();
    uint64_t length = 0;
    std::memcpy(&length, base, 8);
    if (length > max_header || length > size - 8)
        throw Error(
            ErrorCode::model_file,
            "[" + path + "] the safetensors header does not fit into the file; it is truncated or of another format");

    JsonMembers members{max_tensors + 1};  // and the metadata
    Json header = parse_json_value({reinterpret_cast<const char*>(base) + 8, length},
                                   path + "] [the safetensors header", &members);
    if (!header.is_object())
        throw Error(ErrorCode::model_file, "[" + path + "] the safetensors header is not a JSON object");
    if (!members.repeated.empty())
        throw Error(ErrorCode::model_file, "[" + path + "] tensor '" + members.repeated + "' is listed twice");
    if (header.size() - header.count("__metadata__") > max_tensors)
        throw Error(ErrorCode::model_file, "[" + path + "] lists more than " + std::to_string(max_tensors) +
                                               " tensors; the largest models have some thousands");
    for (auto& [name, entry] : header.items()) {
        if (name == "__metadata__") {
            if (!entry.is_object()) continue;
            for (auto& [key, value] : entry.items())
                if (value.is_string()) file->text_[key] = std::move(value.get_ref<std::string&>());
            continue;
        }
        file->tensors_.push_back(read_entry(name, entry, base + 8 + length, size - 8 - length, path));
    }
    check_places(*file);
    return file;
}

}  // namespace sdltx
