#include "fp8.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "backend.h"
#include "json.h"

namespace sdltx {

namespace {

using Table = std::array<float, 256>;

// Sign, exponent and mantissa; e4m3 has no infinity and one NaN, e5m2 has both as IEEE types do.
Table make_table(int exponent_bits, int mantissa_bits, bool infinite) {
    Table table{};
    const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
    for (int i = 0; i < 256; ++i) {
        const int mantissa = i & ((1 << mantissa_bits) - 1), exponent = (i >> mantissa_bits) & top;
        const double fraction = static_cast<double>(mantissa) / (1 << mantissa_bits);
        double value = exponent ? std::ldexp(1 + fraction, exponent - bias) : std::ldexp(fraction, 1 - bias);
        if (infinite && exponent == top)
            value = mantissa ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
        if (!infinite && exponent == top && mantissa == (1 << mantissa_bits) - 1)
            value = std::numeric_limits<double>::quiet_NaN();
        table[static_cast<size_t>(i)] = static_cast<float>(i & 0x80 ? -value : value);
    }
    return table;
}

const Table& table_of(const TensorInfo& info) {
    static const Table e4m3 = make_table(4, 3, false), e5m2 = make_table(5, 2, true);
    return info.dtype == "F8_E5M2" ? e5m2 : e4m3;
}

void check_format(const std::string& format, const std::string& path) {
    if (format == "float8_e4m3fn" || format == "float8_e5m2") return;
    throw Error(ErrorCode::model_mismatch, "[" + path + "] is quantised as '" + format +
                                               "', which this version does not read; use the BF16, FP8 or GGUF file");
}

// The two ways in which a file says how its layers are quantised; one of them is often missing.
void check_marks(ModelFile& file) {
    if (const auto text = file.metadata("_quantization_metadata")) {
        const Json marks = parse_json(*text, file.path() + "] [_quantization_metadata");
        if (marks.contains("layers") && marks["layers"].is_object())
            for (auto& [layer, how] : marks["layers"].items())
                if (how.is_object() && how.contains("format") && how["format"].is_string())
                    check_format(how["format"].get<std::string>(), file.path());
    }
    for (auto& t : file.tensors()) {
        if (!ends_with(t.stored_name, ".comfy_quant")) continue;
        t.used = true;
        const Json mark =
            parse_json({reinterpret_cast<const char*>(t.data), t.nbytes}, file.path() + "] [" + t.stored_name);
        if (mark.contains("format") && mark["format"].is_string())
            check_format(mark["format"].get<std::string>(), file.path());
    }
}

float scale_at(const TensorInfo& scale, int64_t i) {
    if (scale.type == GGML_TYPE_F32) {
        float value;
        std::memcpy(&value, scale.data + i * 4, sizeof(value));
        return value;
    }
    uint16_t half;
    std::memcpy(&half, scale.data + i * 2, sizeof(half));
    return scale.type == GGML_TYPE_F16 ? ggml_fp16_to_fp32(half) : ggml_bf16_to_fp32({half});
}

}  // namespace

bool is_fp8(const TensorInfo& info) { return info.dtype == "F8_E4M3" || info.dtype == "F8_E5M2"; }

void attach_scales(ModelFile& file) {
    if (file.is_gguf()) return;
    check_marks(file);
    std::unordered_map<std::string, TensorInfo*> by_name;
    for (auto& t : file.tensors()) by_name.emplace(t.stored_name, &t);
    const auto find = [&](const std::string& name) {
        const auto it = by_name.find(name);
        return it == by_name.end() ? nullptr : it->second;
    };
    if (TensorInfo* mark = find("scaled_fp8")) mark->used = true;
    if (std::any_of(file.tensors().begin(), file.tensors().end(), is_fp8))
        log(20, "[load] " + file.path() + " holds FP8 weights; they are computed in BF16");
    for (auto& t : file.tensors()) {
        if (!is_fp8(t) || !ends_with(t.stored_name, ".weight")) continue;
        const std::string layer = t.stored_name.substr(0, t.stored_name.size() - std::string("weight").size());
        for (const char* of_activations : {"input_scale", "scale_input"})
            if (TensorInfo* unused = find(layer + of_activations)) unused->used = true;
        for (const char* spelling : {"weight_scale", "scale_weight"}) {
            TensorInfo* scale = find(layer + spelling);
            if (!scale) continue;
            scale->used = true;
            const int64_t n = scale->elements();
            const bool floats =
                scale->type == GGML_TYPE_F32 || scale->type == GGML_TYPE_F16 || scale->type == GGML_TYPE_BF16;
            if (!floats || t.shape.empty() || (n != 1 && n != t.shape.front()))
                throw Error(ErrorCode::model_file,
                            "[" + file.path() + "] '" + scale->stored_name + "' is no scale of '" + t.stored_name +
                                "': expected one number, or one for each row, in F32, F16 or BF16");
            t.scale = scale;
        }
    }
}

void decode_fp8(const TensorInfo& info, int64_t first, int64_t count, float* to) {
    const Table& table = table_of(info);
    const uint8_t* from = info.data + first;
    if (!info.scale) {
        for (int64_t i = 0; i < count; ++i) to[i] = table[from[i]];
        return;
    }
    const bool by_row = info.scale->elements() > 1;
    const int64_t row = by_row ? info.elements() / info.shape.front() : count;
    for (int64_t i = 0; i < count;) {
        const int64_t number = by_row ? (first + i) / row : 0;
        const int64_t end = by_row ? std::min(count, (number + 1) * row - first) : count;
        const float scale = scale_at(*info.scale, number);
        for (; i < end; ++i) to[i] = table[from[i]] * scale;
    }
}

}  // namespace sdltx
