// Weights in encodings that ggml does not have, with scales and marks of any types and shapes.
#include "ggml/encodings.h"

#include "fuzz.h"
#include "ggml/values.h"
#include "model/names.h"

namespace sdltx::fuzz {

namespace {

constexpr const char* dtypes[] = {"U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F32", "F16", "BF16", "I32", "F64"};
constexpr size_t sizes[] = {1, 1, 1, 1, 1, 4, 2, 2, 4, 8};
constexpr const char* tails[] = {"weight",      "weight_scale", "scale_weight",    "weight_scale_2", "input_scale",
                                 "comfy_quant", "bias",         "pre_quant_scale", "scaled_fp8"};
constexpr int64_t few = 1 << 14;

// A tensor of any values; mostly of what belongs there.
void add(TensorFile& file, Bytes& in, const std::string& name, size_t kind, std::vector<int64_t> shape) {
    if (in.below(16) == 0) kind = in.below(std::size(dtypes));
    if (in.below(16) == 0) shape.push_back(in.below(4));
    if (in.below(16) == 0 && !shape.empty()) shape.back() = in.below(40);
    auto bytes = static_cast<int64_t>(sizes[kind]);
    for (int64_t n : shape) bytes *= n;
    if (bytes > (1 << 16)) throw Error(ErrorCode::model_file, "[fuzz] too large");
    std::string values(static_cast<size_t>(bytes), '\x38');
    for (size_t i = 0; i < values.size() && !in.empty(); i += 7) values[i] = static_cast<char>(in.byte());
    file.add(name, dtypes[kind], shape, values);
}

void add_mark(TensorFile& file, Bytes& in) {
    constexpr const char* marks[] = {"{\"format\":\"float8_e4m3fn\"}", "{\"format\":\"nvfp4\"}",
                                     "{\"format\":\"mxfp8\"}", "{\"format\":\"int8_tensorwise\"}",
                                     "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":16}"};
    const std::string mark = in.below(4) ? marks[in.below(5)] : in.text();
    file.add("a.comfy_quant", "U8", {static_cast<int64_t>(mark.size())}, mark);
}

void decode_all(const uint8_t* data, size_t size) {
    constexpr size_t u8 = 0, i8 = 1, e4m3 = 2, e5m2 = 3, f32 = 5;
    Bytes in(data, size);
    TensorFile file;
    const int64_t rows = 1 + in.below(5), columns = 16 * (1 + in.below(9));
    const int64_t tile = (rows + 127) / 128 * 128;
    switch (in.below(6)) {
        case 0:  // FP8, with a number for all or for each row
            add(file, in, "a.weight", in.below(2) ? e4m3 : e5m2, {rows, columns});
            add(file, in, in.below(2) ? "a.weight_scale" : "a.scale_weight", f32 + in.below(3),
                in.below(2) ? std::vector<int64_t>{} : std::vector<int64_t>{rows, 1});
            break;
        case 1:  // MXFP8
            add(file, in, "a.weight", e4m3, {rows, columns * 2});
            add(file, in, "a.weight_scale", in.below(2) ? u8 : u8 + 4, {tile, (columns / 16 + 3) / 4 * 4});
            break;
        case 2:  // NVFP4
            add(file, in, "a.weight", u8, {rows, columns / 2});
            add(file, in, "a.weight_scale", e4m3, {tile, (columns / 16 + 3) / 4 * 4});
            add(file, in, "a.weight_scale_2", f32, {});
            break;
        case 3:  // int8
            add(file, in, "a.weight", i8, {rows, columns});
            add(file, in, "a.weight_scale", f32, in.below(2) ? std::vector<int64_t>{} : std::vector<int64_t>{rows, 1});
            break;
        default:
            for (int left = in.below(4); left > 0; --left)
                add(file, in, std::string("a.") + tails[in.below(std::size(tails))] + (in.below(4) ? "" : "x"),
                    in.below(std::size(dtypes)), {rows, columns});
    }
    if (in.below(2)) add_mark(file, in);
    if (in.below(2)) file.add_metadata("_quantization_metadata", std::string(in.rest()));
    const ModelFiles files({file_of(file.bytes())}, ltx_naming());
    for (const TensorInfo& t : files.files().front()->tensors()) {
        if (!readable(t) || t.elements() > few || t.elements() == 0) continue;
        to_float(t);
        std::string halves(static_cast<size_t>(t.elements()) * sizeof(ggml_fp16_t), '\0');
        convert_values(t, halves.data(), GGML_TYPE_F16, t.elements());
        if (t.encoding == Encoding::none || computed_as_stored(t)) continue;
        const ggml_type type = packed_type(t);
        std::string packed(ggml_row_size(type, t.elements()), '\0');
        pack(t, packed.data());
    }
}

const Register encodings("encodings", decode_all);

}  // namespace

}  // namespace sdltx::fuzz
