// Vocabularies as GGUF files have them, in arrays of any length and kind.
#include <cstring>

#include "fuzz.h"
#include "gemma3/tokenizer.h"
#include "gemma4/tokenizer.h"
#include "model/names.h"
#include "tokenizers.h"

namespace sdltx::fuzz {

namespace {

constexpr const char* keys[] = {"model",        "tokens",           "scores", "token_type",
                                "bos_token_id", "unknown_token_id", "merges"};

class Writer {
 public:
    template <typename T>
    void put(T value) {
        out.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    void put_text(const std::string& text) {
        put<uint64_t>(text.size());
        out += text;
    }
    std::string out;
};

// The pieces without which no vocabulary is accepted, and others.
std::vector<std::string> pieces(Bytes& in) {
    std::vector<std::string> all{"<unk>", "<bos>"};
    for (int byte = 0; byte < 256; ++byte) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
        all.emplace_back(name);
    }
    for (int left = in.below(16); left > 0; --left) all.push_back(in.text(6));
    if (in.below(8) == 0) all.resize(in.byte());
    return all;
}

void read(const uint8_t* data, size_t size) {
    Bytes in(data, size);
    const bool gemma4 = in.byte() & 1;
    const std::vector<std::string> tokens = pieces(in);
    Writer w;
    w.out = "GGUF";
    w.put<uint32_t>(3);
    w.put<uint64_t>(1);
    const uint8_t left_out = in.byte();  // one of the keys, or none
    uint64_t count = 1;
    for (size_t i = 0; i < std::size(keys); ++i) count += i != left_out && (gemma4 || i != 6);
    w.put<uint64_t>(count);
    w.put_text("general.architecture");
    w.put<uint32_t>(8);
    w.put_text(gemma4 ? "gemma4" : "gemma3");
    for (size_t i = 0; i < std::size(keys); ++i) {
        if (i == left_out || (!gemma4 && i == 6)) continue;
        w.put_text(std::string("tokenizer.ggml.") + keys[i]);
        if (i == 0) {
            w.put<uint32_t>(8);
            w.put_text(in.below(8) ? (gemma4 ? "gemma4" : "llama") : in.text(8));
        } else if (i == 1) {
            w.put<uint32_t>(9);
            w.put<uint32_t>(8);
            w.put<uint64_t>(tokens.size());
            for (auto& token : tokens) w.put_text(token);
        } else if (i == 2 || i == 3) {
            const bool as_floats = i == 2 || in.below(16) == 0;
            w.put<uint32_t>(9);
            w.put<uint32_t>(as_floats ? 6 : 5);
            const uint64_t n = in.below(16) ? tokens.size() : in.byte();
            w.put<uint64_t>(n);
            for (uint64_t at = 0; at < n; ++at)
                if (as_floats)
                    w.put(static_cast<float>(in.real()));
                else
                    w.put<int32_t>(at < 2 ? 3 : at < 258 ? 6 : in.below(8));
        } else if (i == 6) {
            w.put<uint32_t>(9);
            w.put<uint32_t>(8);
            const uint64_t n = in.below(8);
            w.put<uint64_t>(n);
            for (uint64_t at = 0; at < n; ++at) w.put_text(in.text(6));
        } else {
            w.put<uint32_t>(4);
            w.put<uint32_t>(in.below(8) ? (i == 4 ? 1 : 0) : static_cast<uint32_t>(in.number()));
        }
    }
    w.put_text("token_embd.weight");
    w.put<uint32_t>(1);
    w.put<uint64_t>(4);
    w.put<uint32_t>(0);
    w.put<uint64_t>(0);
    w.out.resize((w.out.size() + 31) / 32 * 32 + 16);
    const ModelFiles files({file_of(w.out)}, ltx_naming());
    use(gemma4 ? *Gemma4Tokenizer::load(files) : *Gemma3Tokenizer::load(files));
}

const Register arrays("tokenizer_arrays", read);

}  // namespace

}  // namespace sdltx::fuzz
