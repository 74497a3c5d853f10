// Any text as a tokenizer.json of either Gemma, and texts for what is accepted.
#include "fuzz.h"
#include "gemma3/tokenizer.h"
#include "gemma4/tokenizer.h"
#include "model/names.h"
#include "tokenizers.h"

namespace sdltx::fuzz {

namespace {

// Gemma 4's lies within the file of the weights.
void as_gemma4(std::string_view text) {
    TensorFile file;
    file.add("tokenizer_json", "U8", {static_cast<int64_t>(text.size())}, text);
    const ModelFiles files({file_of(file.bytes())}, ltx_naming());
    use(*Gemma4Tokenizer::load(files));
}

void read(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    try {
        use(Gemma3Tokenizer(read_tokenizer_json(text, "tokenizer.json")));
    } catch (const Error&) {
        // perhaps the other one takes it
    }
    as_gemma4(text);
}

const Register json("tokenizer_json", read);

}  // namespace

}  // namespace sdltx::fuzz
