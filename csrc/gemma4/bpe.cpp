#include "bpe.h"

#include <cstdio>
#include <queue>

#include "gemma/utf8.h"

namespace sdltx {

BytePairEncoding::BytePairEncoding(const std::vector<std::pair<std::string, int32_t>>& vocabulary,
                                   const std::vector<std::pair<std::string, std::string>>& merges, int32_t unknown)
    : unknown_(unknown) {
    std::unordered_map<std::string_view, int32_t> ids;
    ids.reserve(vocabulary.size());
    for (const auto& [token, id] : vocabulary) {
        ids.emplace(token, id);
        if (is_one_codepoint(token)) characters_.emplace(token, id);
    }
    for (int byte = 0; byte < 256; ++byte) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
        const auto found = ids.find(name);
        if (found == ids.end()) {
            bytes_.clear();
            break;
        }
        bytes_.push_back(found->second);
    }
    merges_.reserve(merges.size());
    std::string joined;
    for (size_t rank = 0; rank < merges.size(); ++rank) {
        joined.assign(merges[rank].first).append(merges[rank].second);
        const auto left = ids.find(merges[rank].first), right = ids.find(merges[rank].second), both = ids.find(joined);
        if (left != ids.end() && right != ids.end() && both != ids.end())
            merges_.emplace(key(left->second, right->second), Merge{static_cast<int32_t>(rank), both->second});
    }
}

void BytePairEncoding::append_character(std::string_view character, std::vector<Symbol>& symbols) const {
    const auto add = [&](int32_t id) {
        const auto at = static_cast<int32_t>(symbols.size());
        symbols.push_back({id, at - 1, at + 1});
    };
    if (const auto found = characters_.find(std::string(character)); found != characters_.end())
        add(found->second);
    else if (!bytes_.empty())
        for (const char c : character) add(bytes_[static_cast<uint8_t>(c)]);
    else if (unknown_ >= 0)
        add(unknown_);
}

void BytePairEncoding::encode(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<Symbol> symbols;
    symbols.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        size_t end = at + 1;
        while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) ++end;
        append_character(text.substr(at, end - at), symbols);
        at = end;
    }
    if (symbols.empty()) return;
    symbols.back().after = -1;

    // Symbols keep their places, so that the leftmost of two has the smaller number.
    struct Candidate {
        int32_t rank, left;
        int32_t left_id, right_id;  // that it was found for: one that has changed since is none

        bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
    };
    std::priority_queue<Candidate> candidates;
    const auto consider = [&](int32_t left) {
        if (left < 0 || symbols[static_cast<size_t>(left)].after < 0) return;
        const Symbol& a = symbols[static_cast<size_t>(left)];
        const Symbol& b = symbols[static_cast<size_t>(a.after)];
        const auto merge = merges_.find(key(a.id, b.id));
        if (merge != merges_.end()) candidates.push({merge->second.rank, left, a.id, b.id});
    };
    for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i));
    while (!candidates.empty()) {
        const Candidate c = candidates.top();
        candidates.pop();
        Symbol& a = symbols[static_cast<size_t>(c.left)];
        if (a.id != c.left_id || a.after < 0) continue;
        Symbol& b = symbols[static_cast<size_t>(a.after)];
        if (b.id != c.right_id) continue;
        a.id = merges_.at(key(a.id, b.id)).id;
        a.after = b.after;
        b.id = -1;
        if (a.after >= 0) symbols[static_cast<size_t>(a.after)].before = c.left;
        consider(a.before);
        consider(c.left);
    }
    for (int32_t at = 0; at >= 0; at = symbols[static_cast<size_t>(at)].after)
        ids.push_back(symbols[static_cast<size_t>(at)].id);
}

}  // namespace sdltx
