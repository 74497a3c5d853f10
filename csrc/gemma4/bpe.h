// Byte pair encoding by ranks of merges (ltx-2.5.md section 4.2; Hugging Face tokenizers' BPE). No ggml.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace sdltx {

class BytePairEncoding {
 public:
    // Merges are pairs of tokens, first rank first; those of tokens that there are not never apply. unknown: the id of
    // what is neither in the vocabulary nor there as bytes, -1 for none.
    BytePairEncoding(const std::vector<std::pair<std::string, int32_t>>& vocabulary,
                     const std::vector<std::pair<std::string, std::string>>& merges, int32_t unknown);

    // Appends the ids of valid UTF-8. Begins with its characters, those that are no token as bytes <0x00> to <0xFF>;
    // then the neighbours whose merge has the lowest rank become one, the leftmost first, until none is left.
    void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
    struct Merge {
        int32_t rank, id;
    };
    struct Symbol {
        int32_t id;  // -1: it has become a part of the one before
        int32_t before, after;
    };
    static uint64_t key(int32_t left, int32_t right) {
        return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    }
    void append_character(std::string_view character, std::vector<Symbol>& symbols) const;

    std::unordered_map<std::string, int32_t> characters_;  // tokens of one character
    std::unordered_map<uint64_t, Merge> merges_;
    std::vector<int32_t> bytes_;  // ids of the 256; empty if one is missing
    int32_t unknown_;
};

}  // namespace sdltx
