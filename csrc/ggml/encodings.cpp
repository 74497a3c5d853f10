#include "encodings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "kernels/kernels.h"

namespace sdltx {

namespace {

constexpr int64_t largest_rotation = 1 << 16;

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

const Table& e4m3() {
    static const Table table = make_table(4, 3, false);
    return table;
}

const Table& e5m2() {
    static const Table table = make_table(5, 2, true);
    return table;
}

// Powers of two.
float e8m0(uint8_t code) {
    return code == no_power ? std::numeric_limits<float>::quiet_NaN()
                            : static_cast<float>(std::ldexp(1.0, static_cast<int>(code) - 127));
}

// Sign, two bits of exponent, one of mantissa.
constexpr float e2m1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

struct Mark {
    std::string format;
    int64_t rotation = 0;
};

constexpr std::pair<const char*, Encoding> formats[] = {{"float8_e4m3fn", Encoding::fp8},
                                                        {"float8_e5m2", Encoding::fp8},
                                                        {"int8_tensorwise", Encoding::int8},
                                                        {"nvfp4", Encoding::nvfp4},
                                                        {"mxfp8", Encoding::mxfp8}};

[[noreturn]] void refuse(const std::string& path, const std::string& format) {
    throw Error(ErrorCode::model_mismatch,
                "[" + path + "] is quantised as '" + format +
                    "', which this version does not read; use the BF16, FP8, int8 or NVFP4 file, or a GGUF");
}

Mark read_mark(const Json& j, const std::string& path) {
    Mark mark;
    if (j.contains("format") && j["format"].is_string()) mark.format = j["format"].get<std::string>();
    if (!mark.format.empty() &&
        std::none_of(std::begin(formats), std::end(formats), [&](auto& f) { return mark.format == f.first; }))
        refuse(path, mark.format);
    if (value_or(j, "convrot", false, path)) {
        mark.rotation = value_or<int64_t>(j, "convrot_groupsize", 256, path);
        int64_t power = 4;
        while (power < mark.rotation && power < largest_rotation) power *= 4;
        if (power != mark.rotation)
            throw Error(ErrorCode::model_file, "[" + path + "] rotates weights in groups of " +
                                                   std::to_string(mark.rotation) +
                                                   "; only powers of four are possible");
    }
    return mark;
}

// By layer: the two ways in which a file says how its layers are quantised; one of them is often missing.
void read_marks(ModelFile& file, std::map<std::string, Mark>& marks) {
    if (const auto text = file.metadata("_quantization_metadata")) {
        const Json j = parse_json(*text, file.path() + "] [_quantization_metadata");
        if (j.contains("layers") && j["layers"].is_object())
            for (auto& [layer, how] : j["layers"].items())
                if (how.is_object()) marks[layer] = read_mark(how, file.path());
    }
    const std::string tail = ".comfy_quant";
    for (auto& t : file.tensors()) {
        if (!ends_with(t.stored_name, tail)) continue;
        t.used = true;
        const std::string where = file.path() + "] [" + t.stored_name;
        if (constexpr size_t most_bytes = size_t{64} << 10; t.nbytes > most_bytes)
            throw Error(ErrorCode::model_file, "[" + where + "] has " + std::to_string(t.nbytes) +
                                                   " bytes; that is no mark of a quantisation");
        const Json j = parse_json({reinterpret_cast<const char*>(t.data), t.nbytes}, where);
        marks[t.stored_name.substr(0, t.stored_name.size() - tail.size())] = read_mark(j, file.path());
    }
}

// Bytes of the scales of blocks, see place_of_block_scale().
int64_t size_of_block_scales(int64_t rows, int64_t blocks) { return (rows + 127) / 128 * ((blocks + 3) / 4) * 512; }

bool has_fp8_values(const TensorInfo& t) { return t.dtype == "F8_E4M3" || t.dtype == "F8_E5M2"; }

// x H for the normalised Kronecker power H of [1 1 1 -1; 1 1 -1 1; 1 -1 1 1; -1 1 1 1] of size `group`, which is its
// own inverse: one axis of four after the other.
void rotate(float* x, int64_t group) {
    for (int64_t step = 1; step < group; step *= 4)
        for (int64_t base = 0; base < group; base += 4 * step)
            for (int64_t i = base; i < base + step; ++i) {
                const float a = x[i], b = x[i + step], c = x[i + 2 * step], d = x[i + 3 * step];
                x[i] = 0.5f * (a + b + c - d);
                x[i + step] = 0.5f * (a + b - c + d);
                x[i + 2 * step] = 0.5f * (a - b + c + d);
                x[i + 3 * step] = 0.5f * (-a + b + c + d);
            }
}

// Finds the tensors that belong to one weight.
class Layer {
 public:
    Layer(ModelFile& file, std::unordered_map<std::string, TensorInfo*>& by_name, TensorInfo& weight)
        : file_(file),
          by_name_(by_name),
          weight_(weight),
          layer_(weight.stored_name.substr(0, weight.stored_name.size() - std::strlen("weight"))) {}

    TensorInfo* find(const char* name) const {
        const auto it = by_name_.find(layer_ + name);
        return it == by_name_.end() ? nullptr : it->second;
    }
    // The first of `names` that there is, taken for used.
    TensorInfo* take(std::initializer_list<const char*> names) const {
        for (const char* name : names)
            if (TensorInfo* t = find(name)) {
                t->used = true;
                return t;
            }
        return nullptr;
    }
    [[noreturn]] void fail(const TensorInfo& scale, const std::string& expected) const {
        throw Error(ErrorCode::model_file, "[" + file_.path() + "] '" + scale.stored_name + "' is no scale of '" +
                                               weight_.stored_name + "': expected " + expected);
    }
    // A number for the tensor, or one for each row.
    const TensorInfo* outer(TensorInfo* scale, bool one) const {
        if (!scale) return nullptr;
        const int64_t n = scale->elements();
        const bool floats =
            scale->type == GGML_TYPE_F32 || scale->type == GGML_TYPE_F16 || scale->type == GGML_TYPE_BF16;
        if (!floats || weight_.shape.empty() || (n != 1 && (one || n != weight_.shape.front())))
            fail(*scale,
                 one ? "one number in F32, F16 or BF16" : "one number, or one for each row, in F32, F16 or BF16");
        return scale;
    }
    // A byte for each block of a row, in tiles.
    const TensorInfo* blocks(TensorInfo* scale, int64_t block) const {
        if (weight_.shape.size() != 2 || weight_.shape[1] % block ||
            static_cast<int64_t>(scale->nbytes) != size_of_block_scales(weight_.shape[0], weight_.shape[1] / block))
            fail(*scale, "a byte for each " + std::to_string(block) + " elements, in tiles of 128 rows");
        return scale;
    }
    void set(Encoding encoding, const char* dtype) {
        weight_.encoding = encoding;
        weight_.dtype = dtype;
        weight_.type = GGML_TYPE_COUNT;
    }

    void attach(const Mark* mark);

 private:
    ModelFile& file_;
    std::unordered_map<std::string, TensorInfo*>& by_name_;
    TensorInfo& weight_;
    std::string layer_;
};

void Layer::attach(const Mark* mark) {
    take({"input_scale", "scale_input"});  // of activations
    if (find("pre_quant_scale")) refuse(file_.path(), "AWQ");
    TensorInfo* scale = take({"weight_scale", "scale_weight"});
    TensorInfo* global = take({"weight_scale_2"});
    const std::string format = mark ? mark->format : "";
    if (weight_.dtype == "U8" && (scale || global || format == "nvfp4")) {
        if (!scale || !global)
            throw Error(ErrorCode::model_file, "[" + file_.path() + "] '" + weight_.stored_name +
                                                   "' is NVFP4 and lacks one of its two scales; download it again");
        set(Encoding::nvfp4, "NVFP4");
        if (!weight_.shape.empty()) weight_.shape.back() *= 2;
        weight_.block_scale = blocks(scale, nvfp4_block);
        if (scale->dtype != "F8_E4M3") fail(*scale, "F8_E4M3");
        weight_.scale = outer(global, true);
    } else if (has_fp8_values(weight_) && scale && (scale->dtype == "U8" || scale->dtype == "F8_E8M0")) {
        if (weight_.dtype == "F8_E5M2") refuse(file_.path(), "MXFP8 with e5m2");
        weight_.block_scale = blocks(scale, mxfp8_block);
        set(Encoding::mxfp8, "MXFP8");
    } else if (weight_.dtype == "I8" && (scale || format == "int8_tensorwise")) {
        if (!scale)
            throw Error(ErrorCode::model_file, "[" + file_.path() + "] '" + weight_.stored_name +
                                                   "' is int8 and lacks its scale; download it again");
        weight_.scale = outer(scale, false);
        weight_.rotation = mark ? mark->rotation : 0;
        if (weight_.rotation && (weight_.shape.size() != 2 || weight_.shape[1] % weight_.rotation))
            throw Error(ErrorCode::model_file, "[" + file_.path() + "] '" + weight_.stored_name +
                                                   "' is rotated in groups that do not divide its rows");
        set(Encoding::int8, "INT8");
    } else if (has_fp8_values(weight_)) {
        weight_.scale = outer(scale, false);
    }
}

// The encodings of one file's weights, with the marks and tensors of its set; log lines tell of them.
void attach_encodings(ModelFile& file, const std::map<std::string, Mark>& marks,
                      std::unordered_map<std::string, TensorInfo*>& by_name) {
    const std::string tail = ".weight";
    std::set<std::string> seen;
    for (auto& t : file.tensors()) {
        if (has_fp8_values(t)) t.encoding = Encoding::fp8;
        if (ends_with(t.stored_name, tail)) {
            const auto mark = marks.find(t.stored_name.substr(0, t.stored_name.size() - tail.size()));
            Layer(file, by_name, t).attach(mark == marks.end() ? nullptr : &mark->second);
        }
        if (t.encoding == Encoding::fp8)
            seen.insert("FP8 weights, which are computed as such on CPUs");
        else if (t.encoding == Encoding::mxfp8)
            seen.insert("MXFP8 weights, which are computed as such on CPUs");
        else if (t.encoding == Encoding::nvfp4)
            seen.insert("NVFP4 weights, which are computed as such");
        else if (t.encoding == Encoding::int8)
            seen.insert(t.rotation ? "rotated int8 weights, which are rotated back and computed in BF16"
                                   : "int8 weights, which are computed as such");
    }
    for (auto& text : seen) log(20, "[load] " + file.path() + " holds " + text);
}

}  // namespace

void attach_encodings(const std::vector<ModelFile*>& set) {
    std::map<std::string, Mark> marks;
    std::unordered_map<std::string, TensorInfo*> by_name;
    for (ModelFile* file : set) {
        if (!file->is_gguf()) {
            read_marks(*file, marks);
            for (auto& t : file->tensors()) by_name.emplace(t.stored_name, &t);
            continue;
        }
        for (auto& t : file->tensors())
            if (ends_with(t.stored_name, ".wglobal"))
                refuse(file->path(), "NVFP4 with a '.wglobal' scale beside each weight");
    }
    if (const auto it = by_name.find("scaled_fp8"); it != by_name.end()) it->second->used = true;
    for (ModelFile* file : set)
        if (!file->is_gguf()) attach_encodings(*file, marks, by_name);
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

void decode(const TensorInfo& info, int64_t first, int64_t count, float* to, bool scaled) {
    const int64_t row = info.shape.empty() ? 1 : std::max<int64_t>(1, info.shape.back());
    switch (info.encoding) {
        case Encoding::none:
            return;
        case Encoding::fp8:
        case Encoding::mxfp8: {
            const Table& table = info.dtype == "F8_E5M2" ? e5m2() : e4m3();
            for (int64_t i = 0; i < count; ++i) to[i] = table[info.data[first + i]];
            break;
        }
        case Encoding::int8:
            for (int64_t i = 0; i < count; ++i) to[i] = static_cast<int8_t>(info.data[first + i]);
            break;
        case Encoding::nvfp4:
            for (int64_t i = first; i < first + count; ++i) {
                const uint8_t pair = info.data[i / 2];  // the first of two in the upper half
                to[i - first] = e2m1[i % 2 ? pair & 15 : pair >> 4];
            }
            break;
    }
    if (info.block_scale) {
        const int64_t block = info.encoding == Encoding::nvfp4 ? nvfp4_block : mxfp8_block, blocks = row / block;
        for (int64_t i = first; i < first + count; ++i) {
            const uint8_t code = info.block_scale->data[place_of_block_scale(i / row, i % row / block, blocks)];
            to[i - first] *= info.encoding == Encoding::nvfp4 ? e4m3()[code] : e8m0(code);
        }
    }
    if (info.rotation)
        for (int64_t i = 0; i < count; i += info.rotation) rotate(to + i, info.rotation);
    if (!info.scale || !scaled) return;
    const bool by_row = info.scale->elements() > 1;
    const int64_t of_row = info.elements() / std::max<int64_t>(1, info.shape.front());
    for (int64_t i = 0; i < count;) {
        const int64_t number = by_row ? (first + i) / of_row : 0;
        const int64_t end = by_row ? std::min(count, (number + 1) * of_row - first) : count;
        const float scale = scale_at(*info.scale, number);
        for (; i < end; ++i) to[i] *= scale;
    }
}

bool computed_as_stored(const TensorInfo& info) {
    return (info.encoding == Encoding::fp8 || info.encoding == Encoding::mxfp8) && info.shape.size() == 2;
}

ggml_type packed_type(const TensorInfo& info) {
    const int64_t row = info.shape.empty() ? 1 : info.shape.back();
    if (info.encoding == Encoding::int8 && !info.rotation && row % ggml_blck_size(GGML_TYPE_Q8_0) == 0)
        return GGML_TYPE_Q8_0;
    if (info.encoding == Encoding::nvfp4 && row % ggml_blck_size(GGML_TYPE_NVFP4) == 0) return GGML_TYPE_NVFP4;
    return GGML_TYPE_BF16;
}

void pack(const TensorInfo& info, void* to) {
    const int64_t elements = info.elements();
    auto* out = static_cast<uint8_t*>(to);
    if (packed_type(info) == GGML_TYPE_Q8_0) {
        // A block is a half-precision factor, here one, and 32 integers.
        const uint16_t one = ggml_fp32_to_fp16(1.0f);
        for (int64_t i = 0; i < elements; i += 32, out += 34) {
            std::memcpy(out, &one, sizeof(one));
            std::memcpy(out + 2, info.data + i, 32);
        }
        return;
    }
    if (packed_type(info) == GGML_TYPE_NVFP4) {
        // A block is the scales of four runs of 16 elements, and their codes: element j of a run in the lower half of
        // byte j, element 8 + j in the upper.
        const int64_t row = info.shape.back(), blocks = row / nvfp4_block;
        for (int64_t i = 0; i < elements; i += 64) {
            for (int64_t run = 0; run < 4; ++run)
                *out++ = info.block_scale->data[place_of_block_scale(i / row, (i % row) / nvfp4_block + run, blocks)];
            for (int64_t run = i; run < i + 64; run += nvfp4_block)
                for (int64_t j = 0; j < 8; ++j) {
                    const auto code = [&](int64_t at) {
                        const uint8_t pair = info.data[at / 2];
                        return at % 2 ? pair & 15 : pair >> 4;
                    };
                    *out++ = static_cast<uint8_t>(code(run + j) | code(run + 8 + j) << 4);
                }
        }
        return;
    }
    constexpr int64_t at_a_time = 1 << 16;  // whole groups of every rotation
    std::vector<float> values(static_cast<size_t>(std::min(elements, at_a_time)));
    for (int64_t first = 0; first < elements; first += at_a_time) {
        const int64_t n = std::min(at_a_time, elements - first);
        decode(info, first, n, values.data(), /*scaled=*/false);
        ggml_fp32_to_bf16_row(values.data(), reinterpret_cast<ggml_bf16_t*>(out) + first, n);
    }
}

}  // namespace sdltx
