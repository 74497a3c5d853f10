// The tokenizer of Gemma 3, as Hugging Face's gives ids, by Google's sentencepiece.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "gemma/tokenizer.h"
#include "ggml/model_file.h"
#include "sentencepiece_model.h"

namespace sentencepiece {
class SentencePieceProcessor;
}  // namespace sentencepiece

namespace sdltx {

class SDLTX_EXPORT Gemma3Tokenizer : public Tokenizer {
 public:
    // From the first of: a Gemma GGUF file among `files`, `tokenizer.model`, `tokenizer.json` in their folders.
    // Throws Error(model_file) when there is none or it is broken, Error(model_mismatch) when it works unlike Gemma's.
    static std::unique_ptr<Tokenizer> load(const ModelFiles& files);

    explicit Gemma3Tokenizer(const SentencepieceModel& model);
    ~Gemma3Tokenizer() override;

    std::string decode(const std::vector<int32_t>& ids) const override;

 private:
    void append_pieces(std::string_view text, std::vector<int32_t>& ids) const override;

    std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
    std::vector<std::string> texts_;  // of each id; empty for what controls a model
};

}  // namespace sdltx
