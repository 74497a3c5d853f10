#include "model_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/json.h"
#include "ggml/arena.h"
#include "gguf.h"

namespace sdltx {

namespace {

struct FreeGguf {
    void operator()(gguf_context* g) const { gguf_free(g); }
};

// The shape in ggml's order, the fastest axis first, in at most four axes.
std::vector<int64_t> ggml_shape(std::vector<int64_t> shape) {
    while (shape.size() > GGML_MAX_DIMS) {
        shape[1] *= shape[0];
        shape.erase(shape.begin());
    }
    if (shape.empty()) shape.push_back(1);
    return {shape.rbegin(), shape.rend()};
}

std::vector<uint8_t> gguf_header(const std::vector<WrittenTensor>& tensors,
                                 const std::map<std::string, std::string>& texts,
                                 const std::map<std::string, uint32_t>& numbers, std::vector<uint64_t>& offsets) {
    const std::unique_ptr<gguf_context, FreeGguf> g(gguf_init_empty());
    for (auto& [key, text] : texts) gguf_set_val_str(g.get(), key.c_str(), text.c_str());
    for (auto& [key, number] : numbers) gguf_set_val_u32(g.get(), key.c_str(), number);
    TensorArena arena;
    for (auto& t : tensors) {
        // Axes of one in front are lost as well.
        if (t.shape.size() > GGML_MAX_DIMS || (t.shape.size() > 1 && t.shape.front() == 1)) {
            const std::vector<int32_t> shape(t.shape.begin(), t.shape.end());
            gguf_set_arr_data(g.get(), ("comfy.gguf.orig_shape." + t.name).c_str(), GGUF_TYPE_INT32, shape.data(),
                              shape.size());
        }
        const std::vector<int64_t> ne = ggml_shape(t.shape);
        ggml_tensor* described = ggml_new_tensor(arena.context(), t.type, static_cast<int>(ne.size()), ne.data());
        ggml_set_name(described, t.name.c_str());
        gguf_add_tensor(g.get(), described);
    }
    std::vector<uint8_t> header(gguf_get_meta_size(g.get()));
    gguf_get_meta_data(g.get(), header.data());
    for (size_t i = 0; i < tensors.size(); ++i)
        offsets.push_back(header.size() + gguf_get_tensor_offset(g.get(), static_cast<int64_t>(i)));
    return header;
}

std::vector<uint8_t> safetensors_header(const std::vector<WrittenTensor>& tensors,
                                        const std::map<std::string, std::string>& texts,
                                        std::vector<uint64_t>& offsets) {
    Json header = Json::object();
    if (!texts.empty()) header["__metadata__"] = texts;
    uint64_t at = 0;
    for (auto& t : tensors) {
        uint64_t size = ggml_type_size(t.type);
        for (int64_t n : t.shape) size *= static_cast<uint64_t>(n);
        const char* dtype = t.type == GGML_TYPE_F32   ? "F32"
                            : t.type == GGML_TYPE_F16 ? "F16"
                            : t.type == GGML_TYPE_I8  ? "U8"
                                                      : "BF16";
        header[t.name] = {{"dtype", dtype}, {"shape", t.shape}, {"data_offsets", {at, at + size}}};
        offsets.push_back(at);
        at += size;
    }
    std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.append((8 - text.size() % 8) % 8, ' ');  // so that the values are aligned
    std::vector<uint8_t> bytes(8 + text.size());
    const uint64_t length = text.size();
    std::memcpy(bytes.data(), &length, 8);
    std::memcpy(bytes.data() + 8, text.data(), text.size());
    for (uint64_t& offset : offsets) offset += bytes.size();
    return bytes;
}

}  // namespace

ModelWriter::ModelWriter(FileFormat format, const std::vector<WrittenTensor>& tensors,
                         const std::map<std::string, std::string>& texts,
                         const std::map<std::string, uint32_t>& numbers) {
    constexpr size_t longest_name = GGML_MAX_NAME - 1;
    const bool gguf = format == FileFormat::gguf;
    for (auto& t : tensors) {
        if (gguf && t.name.size() > longest_name)
            throw Error(ErrorCode::invalid_request,
                        "[convert] the name '" + t.name + "' is too long for a GGUF; write a .safetensors file");
        if (!gguf && ggml_is_quantized(t.type))
            throw Error(ErrorCode::invalid_request, "[convert] safetensors files hold f32, f16 and bf16 and not " +
                                                        std::string(ggml_type_name(t.type)) + "; write a .gguf file");
    }
    header_ = gguf ? gguf_header(tensors, texts, numbers, offsets_) : safetensors_header(tensors, texts, offsets_);
    bytes_ = header_.size();
    for (size_t i = 0; i < tensors.size(); ++i) {
        const std::vector<int64_t> ne = ggml_shape(tensors[i].shape);
        uint64_t size = ggml_row_size(tensors[i].type, ne.front());
        for (size_t axis = 1; axis < ne.size(); ++axis) size *= static_cast<uint64_t>(ne[axis]);
        bytes_ = std::max(bytes_, offsets_[i] + (gguf ? GGML_PAD(size, GGUF_DEFAULT_ALIGNMENT) : size));
    }
}

ModelWriter::~ModelWriter() {
    if (fd_ >= 0) ::close(fd_);
}

void ModelWriter::fail(int error) const {
    throw Error(ErrorCode::backend, "[convert] cannot write " + path_ + ": " + std::strerror(error));
}

void ModelWriter::open(const std::string& path) {
    path_ = path;
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) fail(errno);
    // Its room at once, so that a full disk is known before hours of work. Where that cannot be done, it grows.
    const int taken = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes_));
    if (taken == ENOSPC || taken == EFBIG) fail(taken);
    if (taken != 0 && ::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0) fail(errno);
    write_at(0, header_.data(), header_.size());
}

void ModelWriter::write(size_t tensor, uint64_t offset, const void* data, size_t bytes) {
    write_at(offsets_[tensor] + offset, data, bytes);
}

void ModelWriter::write_at(uint64_t at, const void* data, size_t bytes) {
    const auto* from = static_cast<const uint8_t*>(data);
    while (bytes > 0) {
        const ssize_t n = ::pwrite(fd_, from, bytes, static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(errno);
        from += n;
        at += static_cast<uint64_t>(n);
        bytes -= static_cast<size_t>(n);
    }
}

void ModelWriter::close() {
    if (::fsync(fd_) != 0 && errno != EINVAL) fail(errno);
    const int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) fail(errno);
}

}  // namespace sdltx
