// Text to token ids: what the tokenizers of the Gemmas have in common.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/export.h"

namespace sdltx {

class SDLTX_EXPORT Tokenizer {
 public:
    virtual ~Tokenizer();

    // The ids of `text` (UTF-8, at most max_bytes long), <bos> first, cut to the first `max_tokens`. Tokens such as
    // <start_of_turn> that the tokenizer knows as such and that are written out in the text become their ids. Nothing
    // is stripped. Safe to call from several threads. Throws Error(invalid_request).
    std::vector<int32_t> encode(std::string_view text, size_t max_tokens = SIZE_MAX) const;

    // The text of ids, without what controls a model (<bos>, <start_of_turn>, ...). Bytes that make no text become
    // U+FFFD. Throws Error(model_mismatch) where it is not known.
    virtual std::string decode(const std::vector<int32_t>& ids) const;
    // The id of a token that stands for itself in a text, or -1.
    int32_t id_of(const std::string& literal) const;

    // One more than the largest id that encode can give.
    int32_t size() const { return size_; }
    int32_t bos() const { return bos_; }
    // The file it was read from.
    const std::string& source() const { return source_; }

    static constexpr size_t max_bytes = size_t{1} << 20;

 protected:
    // Tokens that stand for themselves when they are written out in a text.
    using Literals = std::vector<std::pair<std::string, int32_t>>;

    // repeats_bos: a text that begins with <bos> gets another one.
    Tokenizer(std::string source, int32_t size, int32_t bos, bool repeats_bos, const Literals& literals);

    // Appends the ids of a text, not empty, that holds no literal.
    virtual void append_pieces(std::string_view text, std::vector<int32_t>& ids) const = 0;

 private:
    struct Literal {
        size_t length = 0;
        int32_t id = 0;
    };
    Literal literal_at(std::string_view text) const;

    std::string source_;
    int32_t size_, bos_;
    bool repeats_bos_;
    std::unordered_map<std::string, int32_t> literals_;
    std::array<std::vector<size_t>, 256> literal_lengths_;  // by first byte, longest first
};

}  // namespace sdltx
