#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/json.h"
#include "fuzz.h"

namespace sdltx::fuzz {

std::string file_of(std::string_view bytes, int number) {
    static std::array<int, 4> files{-1, -1, -1, -1};
    int& fd = files.at(static_cast<size_t>(number));
    if (fd < 0) fd = ::memfd_create("fuzz", MFD_CLOEXEC);
    expect(fd >= 0 && ::ftruncate(fd, 0) == 0, "no file in memory");
    for (size_t at = 0; at < bytes.size();) {
        const ssize_t n = ::pwrite(fd, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
        expect(n > 0, "no memory for a file");
        at += static_cast<size_t>(n);
    }
    return "/proc/self/fd/" + std::to_string(fd);
}

namespace {

// Not by the library: lists of initial values of its objects leak where clang 14 compiles them.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void TensorFile::add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
                     std::string_view bytes) {
    entries_ += entries_.empty() ? "" : ",";
    entries_ += quoted(name) + ":{\"dtype\":\"" + dtype + "\",\"shape\":[";
    for (size_t i = 0; i < shape.size(); ++i) entries_ += (i ? "," : "") + std::to_string(shape[i]);
    entries_ += "],\"data_offsets\":[" + std::to_string(tensors_.size()) + ",";
    tensors_ += bytes;
    entries_ += std::to_string(tensors_.size()) + "]}";
}

void TensorFile::add_metadata(const std::string& key, const std::string& value) {
    metadata_ += (metadata_.empty() ? "" : ",") + quoted(key) + ":" + quoted(value);
}

std::string TensorFile::bytes() const {
    const std::string separator = metadata_.empty() || entries_.empty() ? "" : ",";
    const std::string header =
        "{" + (metadata_.empty() ? "" : "\"__metadata__\":{" + metadata_ + "}") + separator + entries_ + "}";
    const uint64_t length = header.size();
    std::string file(sizeof(length), '\0');
    std::memcpy(file.data(), &length, sizeof(length));
    return file + header + tensors_;
}

uint64_t Bytes::number() {
    constexpr uint64_t limits[] = {0,         1,          2,         3,          UINT8_MAX, UINT16_MAX,
                                   INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ull << 40};
    const uint8_t kind = byte();
    if (const size_t number = kind >> 2; number < std::size(limits) && (kind & 3) == 3) return limits[number];
    uint64_t value = 0;
    for (int i = 0; i < 1 << (kind & 3); ++i) value |= static_cast<uint64_t>(byte()) << (8 * i);
    return value;
}

double Bytes::real() {
    const uint64_t bits = number();
    double value;
    std::memcpy(&value, &bits, sizeof(value));
    return byte() & 1 ? value : static_cast<double>(static_cast<int64_t>(bits)) / 16;
}

std::string Bytes::text(size_t longest) {
    std::string out(byte() % (longest + 1), '\0');
    for (char& c : out) c = static_cast<char>(byte());
    return out;
}

std::string_view Bytes::rest() {
    const std::string_view all(reinterpret_cast<const char*>(at_), static_cast<size_t>(end_ - at_));
    at_ = end_;
    return all;
}

void check_tensors(const ModelFile& file) {
    const uint8_t *begin = file.map().data(), *end = begin + file.map().size();
    for (const TensorInfo& t : file.tensors()) {
        expect(t.data >= begin && t.data <= end, "a tensor does not begin within its file");
        expect(t.nbytes <= static_cast<size_t>(end - t.data), "a tensor does not end within its file");
        expect(t.elements() >= 0, "a tensor has a negative number of elements");
        if (t.type == GGML_TYPE_COUNT) continue;
        const auto block = static_cast<uint64_t>(ggml_blck_size(t.type));
        expect(static_cast<uint64_t>(t.elements()) / block * ggml_type_size(t.type) == t.nbytes,
               "a tensor is not as long as its shape says");
    }
}

}  // namespace sdltx::fuzz
