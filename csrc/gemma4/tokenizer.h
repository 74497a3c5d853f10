// Gemma 4's tokenizer as LTX-2.5 was released with it (ltx-2.5.md section 4.2): byte pair encoding of whole texts.
#pragma once

#include <memory>

#include "bpe.h"
#include "gemma/tokenizer.h"
#include "ggml/model_file.h"

namespace sdltx {

class SDLTX_EXPORT Gemma4Tokenizer : public Tokenizer {
 public:
    // From the first of: `tokenizer_json` inside the file of the text encoder, the arrays of a GGUF file,
    // tokenizer.json in the folders of the files. Throws Error(model_file) when there is none or it is broken,
    // Error(model_mismatch) when it works unlike Gemma 4's.
    static std::unique_ptr<Tokenizer> load(const ModelFiles& files);

 private:
    struct Parts;  // of a vocabulary, however it is stored
    explicit Gemma4Tokenizer(const Parts& parts);
    static std::unique_ptr<Tokenizer> from_json(std::string_view text, const std::string& source);
    static std::unique_ptr<Tokenizer> from_gguf(const ModelFile& file);
    void append_pieces(std::string_view text, std::vector<int32_t>& ids) const override;

    BytePairEncoding encoding_;
};

}  // namespace sdltx
