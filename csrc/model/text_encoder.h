// Which of the Gemmas the text encoder among some files is, and whether it is the one that a transformer was trained
// with.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gemma/tokenizer.h"
#include "gemma/tower.h"
#include "ltxv/config.h"

namespace sdltx {

// Throws Error(model_file | model_mismatch) for files that hold a part of one, and for a text encoder that the
// transformer among them was not trained with; warns where they do not tell.
std::unique_ptr<TextTower> make_text_encoder(const ModelFiles& files, const ModelConfig& config, Workspace& workspace);
// That of the text encoder, or, without one, of the files that are there. Throws as Tokenizers do.
SDLTX_EXPORT std::unique_ptr<Tokenizer> load_tokenizer(const ModelFiles& files);

// What a tower that writes, with its head there, answers to a prompt: at most so many tokens, drawn by `seed`.
// `on_token` hears how many there are, at first several times of none.
std::string written_answer(TextTower& tower, const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                           int64_t most, uint64_t seed, Trace* trace,
                           const std::function<void(int64_t tokens)>& on_token);

// The same for tests, of files of a text encoder alone.
SDLTX_EXPORT std::string write_answer(const ModelFiles& files, const std::string& system, const std::string& user,
                                      int64_t most, uint64_t seed, bool exact, const std::string& device);

// All hidden states of some ids, for tests: opens, loads, encodes and closes.
SDLTX_EXPORT Array encode_tokens(const ModelFiles& files, const std::vector<int32_t>& ids, bool exact,
                                 const std::string& device);

}  // namespace sdltx
