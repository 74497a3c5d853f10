#include "sentencepiece_model.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/json.h"
#include "gemma/tokenizer_json.h"
#include "gemma/utf8.h"
#include "sentencepiece_model.pb.h"

namespace sdltx {

namespace {

using json = nlohmann::json;

constexpr std::string_view space_mark = "\xE2\x96\x81";  // U+2581, which stands for a space inside pieces

[[noreturn]] void broken(const std::string& source, const std::string& what) {
    throw Error(ErrorCode::model_file, "[" + source + "] the tokenizer " + what + "; download the file again");
}

[[noreturn]] void unsupported(const std::string& source, const std::string& what) {
    throw Error(ErrorCode::model_mismatch, "[" + source + "] the tokenizer " + what + "; give the one of Gemma 3");
}

// The byte that "<0xHH>" stands for, or -1.
int byte_of(std::string_view text) {
    if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return -1;
    int value = 0;
    for (const char c : text.substr(3, 2)) {
        if (!(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'F')) return -1;
        value = value * 16 + (c <= '9' ? c - '0' : c - 'A' + 10);
    }
    return value;
}

void add_literals_by_type(SentencepieceModel& model) {
    for (size_t id = 0; id < model.pieces.size(); ++id) {
        const Piece& piece = model.pieces[id];
        if (piece.type == PieceType::control || piece.type == PieceType::user_defined ||
            piece.type == PieceType::unknown)
            model.literals.emplace_back(piece.text, static_cast<int32_t>(id));
    }
}

// What every reader's result must fulfil.
void check(const SentencepieceModel& model) {
    const std::string& source = model.source;
    std::unordered_map<std::string_view, size_t> ids;
    ids.reserve(model.pieces.size());
    std::array<bool, 256> has_byte{};
    size_t unknowns = 0;
    for (size_t id = 0; id < model.pieces.size(); ++id) {
        const Piece& piece = model.pieces[id];
        const std::string name = "piece " + std::to_string(id);
        if (piece.text.empty()) broken(source, "has the empty " + name);
        if (find_invalid_utf8(piece.text) != std::string_view::npos)
            broken(source, "has " + name + ", which is not valid UTF-8");
        if (!std::isfinite(piece.score)) broken(source, "has " + name + " with a score that is not finite");
        const auto [other, added] = ids.emplace(piece.text, id);
        if (!added)
            broken(source, "has pieces " + std::to_string(other->second) + " and " + std::to_string(id) + " alike");
        if (piece.type == PieceType::unknown) ++unknowns;
        if (piece.type == PieceType::byte) {
            const int byte = byte_of(piece.text);
            if (byte < 0) broken(source, "has " + name + ", typed as a byte but not written <0xHH>");
            has_byte[static_cast<size_t>(byte)] = true;
        }
    }
    if (unknowns != 1) broken(source, "has " + std::to_string(unknowns) + " <unk> pieces, expected 1");
    for (const bool present : has_byte)
        if (!present) unsupported(source, "lacks some of the 256 byte pieces");
    if (model.bos < 0 || static_cast<size_t>(model.bos) >= model.pieces.size())
        broken(source, "has no <bos> token among its " + std::to_string(model.pieces.size()) + " pieces");
}

int32_t find_piece(const SentencepieceModel& model, std::string_view text) {
    for (size_t id = 0; id < model.pieces.size(); ++id)
        if (model.pieces[id].text == text) return static_cast<int32_t>(id);
    return -1;
}

// `object[key]`, which must be there.
const json& member(const json& object, const char* key, const std::string& source) {
    const auto it = object.is_object() ? object.find(key) : object.end();
    if (it == object.end()) broken(source, std::string("has no '") + key + "' where the format wants one");
    return *it;
}

// Protocol buffers: what a message lists takes a multiple of its bytes once it is parsed, so it is counted before.
class Entries {
 public:
    explicit Entries(size_t most) : left_(most) {}

    // Whether there are not too many, in `bytes` and one level below. What is malformed ends it.
    bool count(std::string_view bytes, int level = 0) {
        while (!bytes.empty()) {
            if (left_-- == 0) return false;
            uint64_t key = 0, length = 0;
            if (!take(bytes, key)) return true;
            switch (key & 7) {
                case 0:
                    if (!take(bytes, length)) return true;
                    break;
                case 1:
                case 5:
                    bytes.remove_prefix(std::min<size_t>(bytes.size(), (key & 7) == 1 ? 8 : 4));
                    break;
                case 2:
                    if (!take(bytes, length) || length > bytes.size()) return true;
                    if (level == 0 && !count(bytes.substr(0, length), 1)) return false;
                    bytes.remove_prefix(length);
                    break;
                default:
                    return false;  // groups, which it does not have
            }
        }
        return true;
    }

 private:
    static bool take(std::string_view& bytes, uint64_t& number) {
        number = 0;
        for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
            const auto byte = static_cast<uint8_t>(bytes.front());
            bytes.remove_prefix(1);
            number |= static_cast<uint64_t>(byte & 127) << shift;
            if (byte < 128) return true;
        }
        return false;
    }
    size_t left_;
};

// Each piece is an entry of its own, with a text, a score and a kind.
bool is_small(std::string_view bytes) { return Entries(3 * max_tokens).count(bytes); }

}  // namespace

SentencepieceModel read_tokenizer_model(std::string_view bytes, const std::string& source) {
    if (!is_small(bytes)) broken(source, "has more entries than any Gemma's, or is damaged");
    sentencepiece::ModelProto proto;
    if (bytes.size() > INT_MAX || !proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
        proto.pieces_size() == 0)
        broken(source, "is not a sentencepiece model");
    const auto& trainer = proto.trainer_spec();
    const auto& normalizer = proto.normalizer_spec();
    if (trainer.model_type() != sentencepiece::TrainerSpec::BPE) unsupported(source, "is not a BPE model");
    if (!trainer.byte_fallback()) unsupported(source, "has no byte fallback");
    if (!normalizer.precompiled_charsmap().empty() || normalizer.add_dummy_prefix() ||
        normalizer.remove_extra_whitespaces() || !normalizer.escape_whitespaces() ||
        trainer.treat_whitespace_as_suffix())
        unsupported(source, "normalises text, expected no normalisation but escaped spaces");

    SentencepieceModel model;
    model.source = source;
    model.pieces.reserve(static_cast<size_t>(proto.pieces_size()));
    for (const auto& piece : proto.pieces())
        model.pieces.push_back({piece.piece(), piece.score(), static_cast<PieceType>(piece.type())});
    add_literals_by_type(model);
    model.bos = find_piece(model, trainer.bos_piece());
    check(model);
    return model;
}

SentencepieceModel read_tokenizer_arrays(const std::vector<std::string_view>& tokens, const std::vector<double>& scores,
                                         const std::vector<double>& types, int64_t bos, int64_t unknown,
                                         const std::string& source) {
    if (tokens.empty() || scores.size() != tokens.size() || types.size() != tokens.size())
        broken(source, "has " + std::to_string(tokens.size()) + " tokens, " + std::to_string(scores.size()) +
                           " scores and " + std::to_string(types.size()) + " types, expected as many of each");
    const auto is_id = [&](int64_t id) { return id >= 0 && static_cast<uint64_t>(id) < tokens.size(); };
    if (!is_id(bos) || !is_id(unknown)) broken(source, "has a <bos> or <unk> id that is not among its tokens");

    SentencepieceModel model;
    model.source = source;
    model.pieces.reserve(tokens.size());
    for (size_t id = 0; id < tokens.size(); ++id) {
        if (!(types[id] >= 1 && types[id] <= 6 && types[id] == std::floor(types[id])))
            broken(source, "has token " + std::to_string(id) + " of an unknown type");
        Piece piece{std::string(tokens[id]), static_cast<float>(scores[id]), static_cast<PieceType>(types[id])};
        // llama.cpp's converter types <unk> as control and writes the spaces of user-defined tokens out.
        if (static_cast<int64_t>(id) == unknown) piece.type = PieceType::unknown;
        if (piece.type == PieceType::user_defined)
            for (size_t at; (at = piece.text.find(' ')) != std::string::npos;) piece.text.replace(at, 1, space_mark);
        model.pieces.push_back(std::move(piece));
    }
    add_literals_by_type(model);
    model.bos = static_cast<int32_t>(bos);
    check(model);
    return model;
}

SentencepieceModel read_tokenizer_json(std::string_view text, const std::string& source) try {
    const TokenizerJson file = TokenizerJsonReader::parse(text);
    if (!file.error.empty()) broken(source, file.error);
    const json& bpe = member(file.rest, "model", source);
    if (!bpe.is_object()) broken(source, "has a 'model' that is not an object");
    if (const std::string strange = strange_option(file); !strange.empty()) unsupported(source, strange);
    const std::string unknown = member(bpe, "unk_token", source).get<std::string>();
    if (file.vocab.empty() || file.merges.empty()) broken(source, "has no tokens, or no merges");

    SentencepieceModel model;
    model.source = source;
    model.pieces.resize(file.vocab.size());
    std::unordered_map<std::string_view, Piece*> by_text;
    by_text.reserve(file.vocab.size());
    for (const auto& [token, id] : file.vocab) {
        if (id < 0 || static_cast<uint64_t>(id) >= file.vocab.size())
            broken(source, "has a token whose id is not one of 0 to " + std::to_string(file.vocab.size() - 1));
        Piece& piece = model.pieces[static_cast<size_t>(id)];
        if (!piece.text.empty()) broken(source, "has two tokens with the id " + std::to_string(id));
        piece.text = token;
        // A token that is neither a character nor (seen below) the result of a merge can't come out of BPE.
        piece.type = token == unknown          ? PieceType::unknown
                     : byte_of(token) >= 0     ? PieceType::byte
                     : is_one_codepoint(token) ? PieceType::normal
                                               : PieceType::control;
        by_text.emplace(piece.text, &piece);
    }

    for (size_t rank = 0; rank < file.merges.size(); ++rank) {
        const auto it = by_text.find(file.merges[rank].joined);
        if (it == by_text.end())
            broken(source, "has merge " + std::to_string(rank) + ", whose result is not in its vocabulary");
        if (it->second->type != PieceType::control) continue;
        it->second->type = PieceType::normal;
        it->second->score = -static_cast<float>(rank);
    }

    for (const json& token : member(file.rest, "added_tokens", source)) {
        const std::string& content = member(token, "content", source).get_ref<const std::string&>();
        const int64_t id = member(token, "id", source).get<int64_t>();
        if (content.empty() || id < 0 || id >= INT32_MAX) broken(source, "has an added token without text or id");
        model.literals.emplace_back(content, static_cast<int32_t>(id));
        const auto it = by_text.find(content);
        if (it != by_text.end() && it->second - model.pieces.data() != id)
            broken(source, "gives an added token two ids");
    }
    model.bos = find_piece(model, "<bos>");
    check(model);
    return model;
} catch (const json::exception& error) {
    broken(source, std::string("is not a valid tokenizer.json (") + error.what() + ")");
}

}  // namespace sdltx
