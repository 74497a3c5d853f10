// The GGUF format, versions 2 and 3, little endian. Read here and not by ggml, whose reader trusts lengths it finds in
// the file and ends the process on some of the errors.
#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "model_file.h"

namespace sdltx {

namespace {

constexpr uint64_t max_values = 1 << 16;  // metadata keys; the largest models have some dozens
constexpr uint64_t max_name = 1 << 10;

enum Kind : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

class Reader {
 public:
    explicit Reader(const MappedFile& map) : map_(map) {}

    template <typename T>
    T get() {
        T value;
        need(sizeof(T));
        std::memcpy(&value, map_.data() + at_, sizeof(T));
        at_ += sizeof(T);
        return value;
    }

    std::string_view text(uint64_t limit) {
        const uint64_t n = get<uint64_t>();
        need(n);
        if (n > limit) fail("holds a string of " + std::to_string(n) + " bytes");
        std::string_view s(reinterpret_cast<const char*>(map_.data() + at_), n);
        at_ += n;
        return s;
    }

    const uint8_t* bytes(uint64_t n) {
        need(n);
        at_ += n;
        return map_.data() + at_ - n;
    }

    void need(uint64_t n) const {
        if (n > map_.size() - at_) fail("ends in the middle of its header; it is truncated, download it again");
    }

    [[noreturn]] void fail(const std::string& why) const {
        throw Error(ErrorCode::model_file, "[" + map_.path() + "] the GGUF file " + why);
    }

    uint64_t position() const { return at_; }
    uint64_t left() const { return map_.size() - at_; }

 private:
    const MappedFile& map_;
    uint64_t at_ = 0;
};

// Bytes of a number; 0 for what is none.
uint64_t size_of(uint32_t kind) {
    switch (kind) {
        case u8:
        case i8:
        case boolean:
            return 1;
        case u16:
        case i16:
            return 2;
        case u32:
        case i32:
        case f32:
            return 4;
        case u64:
        case i64:
        case f64:
            return 8;
        default:
            return 0;
    }
}

template <typename T>
double as(const uint8_t* data) {
    T value;
    std::memcpy(&value, data, sizeof(T));
    return static_cast<double>(value);
}

double number_at(const uint8_t* data, uint32_t kind) {
    switch (kind) {
        case u8:
            return as<uint8_t>(data);
        case i8:
            return as<int8_t>(data);
        case boolean:
            return *data != 0;
        case u16:
            return as<uint16_t>(data);
        case i16:
            return as<int16_t>(data);
        case u32:
            return as<uint32_t>(data);
        case i32:
            return as<int32_t>(data);
        case f32:
            return as<float>(data);
        case u64:
            return as<uint64_t>(data);
        case i64:
            return as<int64_t>(data);
        default:
            return as<double>(data);
    }
}

// `n` numbers of a kind, where they lie.
const uint8_t* numbers(Reader& in, uint32_t kind, uint64_t n) {
    const uint64_t size = size_of(kind);
    if (!size) in.fail("has a metadata value of unknown type " + std::to_string(kind));
    return in.bytes(n * size);
}

GgufValue read_value(Reader& in) {
    GgufValue v{};
    const uint32_t kind = in.get<uint32_t>();
    if (kind == string) {
        v.kind = GgufValue::Kind::string;
        v.string = in.text(in.left());
    } else if (kind == array) {
        v.kind = GgufValue::Kind::array;
        const uint32_t item = in.get<uint32_t>();
        const uint64_t n = in.get<uint64_t>();
        if (n > in.left()) in.fail("has an array that is longer than the file");
        if (item == string) {
            if (n > in.left() / sizeof(uint64_t)) in.fail("has an array that is longer than the file");
            v.strings.reserve(n);
            for (uint64_t i = 0; i < n; ++i) v.strings.push_back(in.text(in.left()));
        } else {
            v.item = item;
            v.count = n;
            v.data = numbers(in, item, n);
        }
    } else if (kind == boolean) {
        v.kind = GgufValue::Kind::boolean;
        v.integer = in.get<uint8_t>() != 0;
    } else if (kind == f32 || kind == f64) {
        v.kind = GgufValue::Kind::real;
        v.real = number_at(numbers(in, kind, 1), kind);
    } else {
        v.kind = GgufValue::Kind::integer;
        v.integer = kind == u64 ? static_cast<int64_t>(std::min<uint64_t>(in.get<uint64_t>(), INT64_MAX))
                                : static_cast<int64_t>(number_at(numbers(in, kind, 1), kind));
    }
    return v;
}

// Writers that reshape tensors, as some rows are no whole blocks, keep the shape that they had; 32 or 64 bits wide.
void restore_shape(TensorInfo& t, const ModelFile& file, uint64_t elements) {
    const GgufValue* kept = file.value("comfy.gguf.orig_shape." + t.stored_name);
    if (!kept || kept->kind != GgufValue::Kind::array || kept->count == 0 || kept->count > 8) return;
    std::vector<int64_t> shape;
    double product = 1;
    for (double n : kept->numbers()) {
        if (!(n >= 1 && n <= 1e12)) return;
        product *= n;
        shape.push_back(static_cast<int64_t>(n));
    }
    if (product == static_cast<double>(elements)) t.shape = std::move(shape);
}

}  // namespace

std::vector<double> GgufValue::numbers() const {
    std::vector<double> values(count);
    for (uint64_t i = 0; i < count; ++i) values[i] = number_at(data + i * size_of(item), item);
    return values;
}

std::unique_ptr<ModelFile> open_gguf(std::unique_ptr<MappedFile> map) {
    auto file = std::make_unique<ModelFile>();
    file->map_ = std::move(map);
    file->gguf_ = true;
    Reader in(*file->map_);
    in.get<uint32_t>();  // magic, already seen
    const uint32_t version = in.get<uint32_t>();
    if (version != 2 && version != 3) in.fail("has version " + std::to_string(version) + "; versions 2 and 3 are read");
    const uint64_t num_tensors = in.get<uint64_t>(), num_values = in.get<uint64_t>();
    if (num_tensors > max_tensors || num_values > max_values)
        in.fail("claims to hold " + std::to_string(num_tensors) + " tensors and " + std::to_string(num_values) +
                " metadata keys; at most " + std::to_string(max_tensors) + " and " + std::to_string(max_values) +
                " are read, the largest models have some thousands");

    for (uint64_t i = 0; i < num_values; ++i) {
        std::string key(in.text(max_name));
        GgufValue value = read_value(in);
        if (value.kind == GgufValue::Kind::string) file->text_[key] = std::string(value.string);
        if (!file->values_.emplace(key, std::move(value)).second) in.fail("has the metadata key '" + key + "' twice");
    }
    uint64_t alignment = 32;
    if (const GgufValue* a = file->value("general.alignment")) alignment = static_cast<uint64_t>(a->integer);
    if (alignment == 0 || alignment > (1 << 20) || (alignment & (alignment - 1)))
        in.fail("has the alignment " + std::to_string(alignment) + "; expected a power of two");

    std::unordered_set<std::string> seen;
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < num_tensors; ++i) {
        TensorInfo t{};
        t.name = t.stored_name = std::string(in.text(max_name));
        const std::string where = "tensor '" + t.name + "'";
        if (!seen.insert(t.name).second) in.fail("lists " + where + " twice");
        const uint32_t rank = in.get<uint32_t>();
        if (rank > GGML_MAX_DIMS)
            in.fail("has " + where + " with " + std::to_string(rank) + " dimensions; at most 4 are possible");
        uint64_t elements = 1;
        for (uint32_t d = 0; d < rank; ++d) {
            const uint64_t n = in.get<uint64_t>();
            if (n > (uint64_t{1} << 40) || (n && elements > (uint64_t{1} << 56) / n))
                in.fail("has " + where + " larger than any file");
            elements *= n;
            t.shape.insert(t.shape.begin(), static_cast<int64_t>(n));
        }
        const uint32_t type = in.get<uint32_t>();
        if (type >= GGML_TYPE_COUNT || ggml_blck_size(static_cast<ggml_type>(type)) == 0)
            in.fail("has " + where + " of the unknown type " + std::to_string(type) +
                    "; the file was written by a newer program, or in a private format such as Q8_CR or Q4_CR");
        t.type = static_cast<ggml_type>(type);
        t.dtype = ggml_type_name(t.type);
        const uint64_t block = static_cast<uint64_t>(ggml_blck_size(t.type));
        if ((t.shape.empty() ? 1 : static_cast<uint64_t>(t.shape.back())) % block)
            in.fail("has " + where + " whose rows are no whole number of blocks");
        t.nbytes = elements / block * ggml_type_size(t.type);
        restore_shape(t, *file, elements);
        offsets.push_back(in.get<uint64_t>());
        file->tensors_.push_back(std::move(t));
    }
    const uint64_t start = (in.position() + alignment - 1) / alignment * alignment;
    const uint64_t size = file->map_->size();
    for (size_t i = 0; i < file->tensors_.size(); ++i) {
        TensorInfo& t = file->tensors_[i];
        if (offsets[i] % alignment) in.fail("has tensor '" + t.name + "' at an unaligned offset");
        if (start > size || offsets[i] > size - start || t.nbytes > size - start - offsets[i])
            in.fail("has tensor '" + t.name + "' beyond its end; it is truncated, download it again");
        t.data = file->map_->data() + start + offsets[i];
    }
    check_places(*file);
    return file;
}

}  // namespace sdltx
