// Any bytes as a tokenizer.model, and texts for what is accepted.
#include "fuzz.h"
#include "gemma3/tokenizer.h"
#include "tokenizers.h"

namespace sdltx::fuzz {

void use(const Tokenizer& tokenizer) {
    for (const char* text :
         {"a red ball", "", "<bos>x", "   two\n\n blanks  ", "\xC3\xBC\xF0\x9F\x98\x80", "<start_of_turn>"}) {
        const std::vector<int32_t> ids = tokenizer.encode(text, 64);
        for (int32_t id : ids) expect(id >= 0 && id < tokenizer.size(), "a number beyond the vocabulary");
        try {
            tokenizer.decode(ids);
        } catch (const Error&) {
            // some only encode
        }
    }
}

namespace {

void read(const uint8_t* data, size_t size) {
    use(Gemma3Tokenizer(read_tokenizer_model({reinterpret_cast<const char*>(data), size}, "tokenizer.model")));
}

const Register model("sentencepiece", read);

}  // namespace

}  // namespace sdltx::fuzz
