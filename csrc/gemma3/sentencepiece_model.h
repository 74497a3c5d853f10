// The vocabulary of a Gemma tokenizer, read from any of the three files that carry it and checked, so that
// sentencepiece never sees data on which it would fail an assertion.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace sdltx {

// Numbered as in sentencepiece's ModelProto and in GGUF's `tokenizer.ggml.token_type`.
enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

struct Piece {
    std::string text;
    float score = 0;  // of two possible merges the one whose result has the higher score is made first
    PieceType type = PieceType::normal;
};

struct SentencepieceModel {
    std::string source;         // file, for messages
    std::vector<Piece> pieces;  // index = token id
    // Tokens that stand for themselves when written out in a text, such as <start_of_turn> or a run of newlines. They
    // are split out before BPE. Ids may lie beyond `pieces`.
    std::vector<std::pair<std::string, int32_t>> literals;
    int32_t bos = -1;
};

// `source` names the file in messages. All throw Error(model_file) for broken data and Error(model_mismatch) for a
// tokenizer that works unlike Gemma's.

// The bytes of a `tokenizer.model`: a serialised sentencepiece ModelProto.
SentencepieceModel read_tokenizer_model(std::string_view bytes, const std::string& source);

// The text of a Hugging Face `tokenizer.json`. Scores are made from the ranks of its merges.
SentencepieceModel read_tokenizer_json(std::string_view text, const std::string& source);

// The `tokenizer.ggml.*` arrays of a GGUF file; `types` holds PieceType numbers; `bos` and `unknown` are token ids.
SentencepieceModel read_tokenizer_arrays(const std::vector<std::string_view>& tokens, const std::vector<double>& scores,
                                         const std::vector<double>& types, int64_t bos, int64_t unknown,
                                         const std::string& source);

}  // namespace sdltx
