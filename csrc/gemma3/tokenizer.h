// Text to token ids, as Hugging Face's Gemma tokenizer gives them, by Google's sentencepiece.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ggml/model_file.h"
#include "sentencepiece_model.h"

namespace sentencepiece {
class SentencePieceProcessor;
}  // namespace sentencepiece

namespace sdltx {

class SDLTX_EXPORT Tokenizer {
 public:
    // From the first of: a Gemma GGUF file among `files`, `tokenizer.model`, `tokenizer.json` in their folders.
    // Throws Error(model_file) when there is none or it is broken, Error(model_mismatch) when it works unlike Gemma's.
    static std::unique_ptr<Tokenizer> load(const ModelFiles& files);

    explicit Tokenizer(const SentencepieceModel& model);
    ~Tokenizer();

    // <bos>, then the ids of `text` (UTF-8, at most max_bytes long), cut to the first `max_tokens`. Tokens such as
    // <start_of_turn> written out in the text become their ids. Nothing is stripped. Safe to call from several threads.
    // Throws Error(invalid_request).
    std::vector<int32_t> encode(std::string_view text, size_t max_tokens = SIZE_MAX) const;

    // One more than the largest id that encode can give.
    int32_t size() const { return size_; }
    int32_t bos() const { return bos_; }
    // The file it was read from.
    const std::string& source() const { return source_; }

    static constexpr size_t max_bytes = size_t{1} << 20;

 private:
    struct Literal {
        size_t length = 0;
        int32_t id = 0;
    };
    Literal literal_at(std::string_view text) const;
    void append_pieces(std::string_view text, std::vector<int32_t>& ids) const;

    std::string source_;
    int32_t size_ = 0;
    int32_t bos_ = 0;
    std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
    std::unordered_map<std::string, int32_t> literals_;
    std::array<std::vector<size_t>, 256> literal_lengths_;  // by first byte, longest first
};

}  // namespace sdltx
