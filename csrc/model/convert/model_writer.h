// Model files being written, GGUF or safetensors: the header first, then the bytes of the tensors in any order.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ggml.h"

namespace sdltx {

enum class FileFormat { gguf, safetensors };

struct WrittenTensor {
    std::string name;  // at most 127 bytes in a GGUF
    ggml_type type;    // F32, F16 or BF16 in safetensors
    std::vector<int64_t> shape;
};

class ModelWriter {
 public:
    // Lays the file out. `texts` and `numbers` are its metadata; safetensors take no numbers. GGUF holds at most four
    // axes, and none of one in front: shapes that lose some are kept as `comfy.gguf.orig_shape.<name>`.
    ModelWriter(FileFormat format, const std::vector<WrittenTensor>& tensors,
                const std::map<std::string, std::string>& texts, const std::map<std::string, uint32_t>& numbers);
    ~ModelWriter();
    ModelWriter(const ModelWriter&) = delete;
    ModelWriter& operator=(const ModelWriter&) = delete;

    // Of the whole file.
    uint64_t bytes() const { return bytes_; }

    // Creates the file, takes its room on the disk and writes the header. Throws Error(backend), also when the disk is
    // full.
    void open(const std::string& path);
    // Bytes of a tensor, `offset` into it. Any thread may call. Throws Error(backend).
    void write(size_t tensor, uint64_t offset, const void* data, size_t bytes);
    // Sees to it that everything is on the disk. Throws Error(backend).
    void close();

 private:
    [[noreturn]] void fail(int error) const;
    void write_at(uint64_t at, const void* data, size_t bytes);

    std::string path_;
    int fd_ = -1;
    std::vector<uint8_t> header_;
    std::vector<uint64_t> offsets_;  // of the tensors, from the start of the file
    uint64_t bytes_ = 0;
};

}  // namespace sdltx
