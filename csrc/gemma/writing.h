// An instruct Gemma writes (prompt-enhancement.md): what it is told, how words are chosen, what of them is kept. No
// ggml.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/export.h"
#include "tokenizer.h"

namespace sdltx {

// A turn of a user, and the start of the model's, as Gemma 3's chat template has them: the system text has no turn of
// its own. Throws Error(invalid_request) for texts that hold the marks of turns.
std::vector<int32_t> chat_prompt(const Tokenizer& tokenizer, std::string_view system, std::string_view user);

// Tokens that end an answer.
std::vector<int32_t> ends_of_answers(const Tokenizer& tokenizer);

// As the reference draws: softmax(scores / temperature) over the `candidates` largest.
struct Drawing {
    double temperature = 0.7;
    size_t candidates = 50;
};
// uniform: between 0 and 1.
SDLTX_EXPORT int32_t drawn_token(const std::vector<float>& scores, const Drawing& how, double uniform);

// With plain quotation marks, dashes and spaces, from the first letter on; without a letter as it is.
SDLTX_EXPORT std::string tidied(std::string text);

}  // namespace sdltx
