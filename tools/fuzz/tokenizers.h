// What tokenizers do, however their vocabulary came.
#pragma once

#include "gemma/tokenizer.h"

namespace sdltx::fuzz {

void use(const Tokenizer& tokenizer);

}  // namespace sdltx::fuzz
