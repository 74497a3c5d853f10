// What the targets share. Each of them takes bytes and either comes to an end or throws sdltx::Error; anything else is
// a find: a crash, another exception, what a sanitizer sees, more memory or time than libFuzzer allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ggml/model_file.h"

namespace sdltx::fuzz {

using Target = void (*)(const uint8_t* data, size_t size);

// Adds a target under the name that the program is called by.
struct Register {
    Register(const char* name, Target target);
};

// Ends the process, which counts as a find.
[[noreturn]] void broken(const char* what);
inline void expect(bool holds, const char* what) {
    if (!holds) broken(what);
}

// A file in memory with a path, one for each number; it is overwritten by the next call.
std::string file_of(std::string_view bytes, int number = 0);

// A safetensors file, of tensors one after the other.
class TensorFile {
 public:
    void add(const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
             std::string_view bytes);
    void add_metadata(const std::string& key, const std::string& value);
    std::string bytes() const;

 private:
    std::string entries_, metadata_, tensors_;
};

// Takes bytes off the front, zeros when there are no more.
class Bytes {
 public:
    Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

    bool empty() const { return at_ == end_; }
    uint8_t byte() { return empty() ? 0 : *at_++; }
    uint64_t number();  // of 1, 2, 4 or 8 bytes, or one at a limit
    uint8_t below(uint8_t limit) { return byte() % limit; }
    double real();
    std::string text(size_t longest = 64);  // its length first
    std::string_view rest();

 private:
    const uint8_t *at_, *end_;
};

// What every reader of a model's file promises: tensors lie within it, and are as long as their type and shape say.
void check_tensors(const ModelFile& file);

}  // namespace sdltx::fuzz
