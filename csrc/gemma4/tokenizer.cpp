#include "tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "base/json.h"
#include "gemma/tokenizer_json.h"
#include "gemma/utf8.h"

namespace sdltx {

namespace {

constexpr std::string_view space_mark = "\u2581";

[[noreturn]] void broken(const std::string& source, const std::string& what) {
    throw Error(ErrorCode::model_file, "[" + source + "] the tokenizer " + what + "; get the file again");
}

[[noreturn]] void unlike(const std::string& source, const std::string& what) {
    throw Error(ErrorCode::model_mismatch,
                "[" + source + "] the tokenizer " + what + ", unlike that of Gemma 4; use the one of LTX-2.5");
}

}  // namespace

struct Gemma4Tokenizer::Parts {
    std::string source;
    std::vector<std::pair<std::string, int32_t>> vocabulary;
    std::vector<std::pair<std::string, std::string>> merges;
    Literals literals;
    int32_t size = 0, bos = -1, unknown = -1;

    void add(std::string token, int64_t id) {
        if (id < 0 || id >= static_cast<int64_t>(max_tokens) || find_invalid_utf8(token) != std::string_view::npos)
            broken(source, "holds a token without a number, or one that is no text");
        size = std::max(size, static_cast<int32_t>(id) + 1);
        vocabulary.emplace_back(std::move(token), static_cast<int32_t>(id));
    }
    void finish() {
        for (const auto& [token, id] : vocabulary) {
            if (token == "<bos>") bos = id;
            if (token == "<unk>") unknown = id;
        }
        for (const auto& [token, id] : literals)
            if (token == "<bos>") bos = id;
        if (vocabulary.empty() || merges.empty()) unlike(source, "has no merges");
        if (bos < 0) unlike(source, "has no <bos>");
    }
};

Gemma4Tokenizer::Gemma4Tokenizer(const Parts& parts)
    : Tokenizer(parts.source, parts.size, parts.bos, false, parts.literals),
      encoding_(parts.vocabulary, parts.merges, parts.unknown) {}

// Blanks are characters as others are; nothing goes before the first word.
void Gemma4Tokenizer::append_pieces(std::string_view text, std::vector<int32_t>& ids) const {
    std::string marked;
    marked.reserve(text.size());
    for (const char c : text)
        if (c == ' ')
            marked += space_mark;
        else
            marked += c;
    encoding_.encode(marked, ids);
}

std::unique_ptr<Tokenizer> Gemma4Tokenizer::from_json(std::string_view text, const std::string& source) {
    TokenizerJson json = TokenizerJsonReader::parse(text);
    if (!json.error.empty()) broken(source, json.error);
    if (!json.rest.is_object()) broken(source, "is no JSON object");
    if (const std::string strange = strange_option(json); !strange.empty()) unlike(source, strange);
    Parts parts;
    parts.source = source;
    for (auto& [token, id] : json.vocab) parts.add(std::move(token), id);
    for (const TokenizerMerge& m : json.merges)
        parts.merges.emplace_back(m.joined.substr(0, m.left), m.joined.substr(m.left));
    const Json added = json.rest.contains("added_tokens") ? json.rest["added_tokens"] : Json::array();
    if (!added.is_array()) broken(source, "has added tokens that are no list");
    for (const Json& token : added) {
        const auto content = require<std::string>(token, "content", source);
        const auto id = require<int64_t>(token, "id", source);
        if (content.empty() || id < 0 || id >= static_cast<int64_t>(max_tokens))
            broken(source, "has an added token without text or number");
        parts.literals.emplace_back(content, static_cast<int32_t>(id));
    }
    parts.finish();
    return std::unique_ptr<Tokenizer>(new Gemma4Tokenizer(parts));
}

namespace {

// Runs of blanks and of newlines come about by merges.
bool is_space(std::string_view token) {
    while (!token.empty())
        if (token.front() == '\n' || token.front() == '\t' || token.front() == ' ')
            token.remove_prefix(1);
        else if (token.substr(0, space_mark.size()) == space_mark)
            token.remove_prefix(space_mark.size());
        else
            return false;
    return true;
}

}  // namespace

std::unique_ptr<Tokenizer> Gemma4Tokenizer::from_gguf(const ModelFile& file) {
    const auto array = [&](const char* name) -> const GgufValue& {
        const GgufValue* v = file.value(std::string("tokenizer.ggml.") + name);
        if (!v || v->kind != GgufValue::Kind::array) broken(file.path(), std::string("lacks its ") + name);
        if (std::max<size_t>(v->count, v->strings.size()) > max_merges)
            broken(file.path(), std::string("has more ") + name + " than any Gemma's");
        return *v;
    };
    constexpr double control = 3, user_defined = 4;
    Parts parts;
    parts.source = file.path();
    const std::vector<std::string_view>& tokens = array("tokens").strings;
    const std::vector<double> types = array("token_type").numbers();
    if (types.size() != tokens.size() || tokens.size() > max_tokens) broken(file.path(), "has tokens without types");
    for (size_t id = 0; id < tokens.size(); ++id) {
        parts.add(std::string(tokens[id]), static_cast<int64_t>(id));
        if ((types[id] == control || types[id] == user_defined) && !is_space(tokens[id]))
            parts.literals.emplace_back(tokens[id], static_cast<int32_t>(id));
    }
    for (const std::string_view merge : array("merges").strings) {
        const size_t blank = merge.find(' ', 1);
        if (blank == std::string_view::npos || blank + 1 == merge.size())
            broken(file.path(), "has a merge that is no pair");
        parts.merges.emplace_back(merge.substr(0, blank), merge.substr(blank + 1));
    }
    parts.finish();
    return std::unique_ptr<Tokenizer>(new Gemma4Tokenizer(parts));
}

std::unique_ptr<Tokenizer> Gemma4Tokenizer::load(const ModelFiles& files) {
    if (const TensorInfo* inside = files.find("tokenizer_json");
        inside && (inside->dtype == "U8" || inside->dtype == "I8" || inside->dtype == "i8")) {
        inside->used = true;
        return from_json({reinterpret_cast<const char*>(inside->data), inside->nbytes},
                         inside->file->path() + "] [tokenizer_json");
    }
    for (const auto& file : files.files())
        if (file->is_gguf() && file->value("tokenizer.ggml.merges")) return from_gguf(*file);
    std::string where;
    for (const std::string& folder : files.folders()) {
        const std::string path = (std::filesystem::path(folder) / "tokenizer.json").string();
        std::error_code ignored;
        if (std::filesystem::exists(path, ignored)) {
            const MappedFile map(path);
            if (map.size() > static_cast<size_t>(max_json_file)) broken(path, "is too large to be one");
            return from_json({reinterpret_cast<const char*>(map.data()), map.size()}, path);
        }
        where += (where.empty() ? "" : ", ") + folder;
    }
    throw Error(ErrorCode::model_file,
                "[tokenizer] the text encoder, Gemma 4, came without its tokenizer: there is no tokenizer_json in its "
                "file and no tokenizer.json in " +
                    where + "; use the file gemma4-12b-with-proj-ltx-2.5, or put tokenizer.json beside yours");
}

}  // namespace sdltx
