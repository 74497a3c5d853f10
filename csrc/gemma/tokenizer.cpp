#include "tokenizer.h"

#include <algorithm>
#include <functional>

#include "base/error.h"
#include "utf8.h"

namespace sdltx {

Tokenizer::Tokenizer(std::string source, int32_t size, int32_t bos, bool repeats_bos, const Literals& literals)
    : source_(std::move(source)), size_(size), bos_(bos), repeats_bos_(repeats_bos) {
    for (const auto& [text, id] : literals) {
        if (text.empty() || !literals_.emplace(text, id).second) continue;
        literal_lengths_[static_cast<uint8_t>(text[0])].push_back(text.size());
        size_ = std::max(size_, id + 1);
    }
    for (auto& lengths : literal_lengths_) {
        std::sort(lengths.begin(), lengths.end(), std::greater<>());
        lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
    }
}

Tokenizer::~Tokenizer() = default;

std::string Tokenizer::decode(const std::vector<int32_t>&) const {
    throw Error(ErrorCode::model_mismatch, "[tokenize] this tokenizer turns texts to numbers only");
}

int32_t Tokenizer::id_of(const std::string& literal) const {
    const auto found = literals_.find(literal);
    return found == literals_.end() ? -1 : found->second;
}

// The longest literal that `text` starts with; length 0 if none.
Tokenizer::Literal Tokenizer::literal_at(std::string_view text) const {
    for (const size_t length : literal_lengths_[static_cast<uint8_t>(text[0])]) {
        if (length > text.size()) continue;
        const auto it = literals_.find(std::string(text.substr(0, length)));
        if (it != literals_.end()) return {length, it->second};
    }
    return {};
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, size_t max_tokens) const {
    const auto refuse = [](const std::string& what) {
        throw Error(ErrorCode::invalid_request, "[tokenize] the text " + what);
    };
    if (text.size() > max_bytes)
        refuse("has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(max_bytes) + " are allowed");
    if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos)
        refuse("is not valid UTF-8 at byte " + std::to_string(at) + "; encode it as UTF-8");

    std::vector<int32_t> ids{bos_};
    const auto append = [&](std::string_view piece) {
        if (!piece.empty()) append_pieces(piece, ids);
    };
    size_t start = 0;
    for (size_t at = 0; at < text.size();) {
        const Literal literal = literal_at(text.substr(at));
        if (literal.length == 0) {
            ++at;
            continue;
        }
        append(text.substr(start, at - start));
        ids.push_back(literal.id);
        start = at += literal.length;
    }
    append(text.substr(start));
    if (!repeats_bos_ && ids.size() > 1 && ids[1] == bos_) ids.erase(ids.begin());
    if (ids.size() > max_tokens) ids.resize(max_tokens);
    return ids;
}

}  // namespace sdltx
