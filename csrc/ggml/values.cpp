#include "values.h"

#include <algorithm>
#include <cstring>

#include "encodings.h"

namespace sdltx {

namespace {

bool known_to_ggml(const TensorInfo& info) {
    return info.type == GGML_TYPE_F32 ||
           (info.type < GGML_TYPE_COUNT && ggml_get_type_traits(info.type)->to_float != nullptr);
}

// ggml reads 16-bit halves and floats in place; a file may have them at any byte.
bool aligned(const uint8_t* data, ggml_type type) {
    return reinterpret_cast<uintptr_t>(data) % (type == GGML_TYPE_F32 ? sizeof(float) : sizeof(uint16_t)) == 0;
}

}  // namespace

bool readable(const TensorInfo& info) { return info.encoding != Encoding::none || known_to_ggml(info); }

void convert_values(const void* from, ggml_type from_type, void* to, ggml_type to_type, int64_t count) {
    if (count == 0) return;
    if (from_type == to_type) {
        std::memcpy(to, from, ggml_row_size(to_type, count));
    } else if (to_type == GGML_TYPE_F32) {
        ggml_get_type_traits(from_type)->to_float(from, static_cast<float*>(to), count);
    } else {
        std::vector<float> values(static_cast<size_t>(count));
        convert_values(from, from_type, values.data(), GGML_TYPE_F32, count);
        ggml_get_type_traits(to_type)->from_float_ref(values.data(), to, count);
    }
}

void read_values(const TensorInfo& info, int64_t first, int64_t count, float* to) {
    if (info.encoding != Encoding::none) {
        decode(info, first, count, to);
        check_mapped(info.data);
        return;
    }
    const uint8_t* from = info.data + ggml_row_size(info.type, first);
    const size_t bytes = ggml_row_size(info.type, count);
    std::vector<uint8_t> copy;
    if (!aligned(from, info.type)) copy.assign(from, from + bytes);
    convert_values(copy.empty() ? from : copy.data(), info.type, to, GGML_TYPE_F32, count);
    check_mapped(info.data);
}

void convert_values(const TensorInfo& info, void* to, ggml_type to_type, int64_t count) {
    constexpr int64_t at_a_time = 1 << 16;  // whole blocks of every type, whole groups of every rotation
    std::vector<float> values(static_cast<size_t>(std::min(count, at_a_time)));
    for (int64_t first = 0; first < count; first += at_a_time) {
        const int64_t n = std::min(at_a_time, count - first);
        read_values(info, first, n, values.data());
        convert_values(values.data(), GGML_TYPE_F32, static_cast<uint8_t*>(to) + ggml_row_size(to_type, first), to_type,
                       n);
    }
}

namespace {

template <typename T>
double one(const uint8_t* data) {
    T value;
    std::memcpy(&value, data, sizeof(T));
    return static_cast<double>(value);
}

}  // namespace

std::optional<double> number_of(const TensorInfo& info) {
    if (info.elements() != 1) return std::nullopt;
    if (readable(info)) return static_cast<double>(to_float(info).data.front());
    constexpr std::pair<const char*, double (*)(const uint8_t*)> kinds[] = {
        {"F64", one<double>},   {"I64", one<int64_t>},  {"I32", one<int32_t>},
        {"I16", one<int16_t>},  {"I8", one<int8_t>},    {"U64", one<uint64_t>},
        {"U32", one<uint32_t>}, {"U16", one<uint16_t>}, {"U8", one<uint8_t>},
    };
    for (auto& [name, read] : kinds)
        if (info.dtype == name) return read(info.data);
    return std::nullopt;
}

Array to_float(const TensorInfo& info) {
    if (!readable(info))
        throw Error(ErrorCode::model_mismatch,
                    "[" + info.file->path() + "] '" + info.stored_name + "' has the unsupported type " + info.dtype);
    Array a{info.shape, std::vector<float>(static_cast<size_t>(info.elements()))};
    read_values(info, 0, info.elements(), a.data.data());
    return a;
}

}  // namespace sdltx
