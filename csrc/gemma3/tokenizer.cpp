#include "tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "base/json.h"
#include "gemma/tokenizer_json.h"
#include "gemma/utf8.h"
#include "sentencepiece_model.pb.h"
#include "sentencepiece_processor.h"

namespace sdltx {

namespace {

namespace fs = std::filesystem;

// sentencepiece looks up at most this many user-defined pieces that start with one another.
constexpr size_t max_space_runs = 64;

bool is_space_run(std::string_view text) {
    constexpr std::string_view mark = "\xE2\x96\x81";
    while (text.substr(0, mark.size()) == mark) text.remove_prefix(mark.size());
    return text.empty();
}

// What sentencepiece is given: literals are split out before it sees a text, so only runs of spaces, which appear when
// spaces are escaped, stay user-defined; the others can never match.
std::unique_ptr<sentencepiece::ModelProto> make_proto(const SentencepieceModel& model) {
    auto proto = std::make_unique<sentencepiece::ModelProto>();
    auto* trainer = proto->mutable_trainer_spec();
    trainer->set_model_type(sentencepiece::TrainerSpec::BPE);
    trainer->set_byte_fallback(true);
    auto* normalizer = proto->mutable_normalizer_spec();
    normalizer->set_name("identity");
    normalizer->set_add_dummy_prefix(false);
    normalizer->set_remove_extra_whitespaces(false);
    normalizer->set_escape_whitespaces(true);

    size_t space_runs = 0;
    proto->mutable_pieces()->Reserve(static_cast<int>(model.pieces.size()));
    for (const Piece& piece : model.pieces) {
        PieceType type = piece.type;
        if (type == PieceType::user_defined) {
            if (!is_space_run(piece.text))
                type = PieceType::control;
            else if (++space_runs > max_space_runs)
                throw Error(ErrorCode::model_mismatch, "[" + model.source + "] the tokenizer has more than " +
                                                           std::to_string(max_space_runs) +
                                                           " user-defined runs of spaces; give the one of Gemma 3");
        }
        auto* out = proto->add_pieces();
        out->set_piece(piece.text);
        out->set_score(piece.score);
        out->set_type(static_cast<sentencepiece::ModelProto::SentencePiece::Type>(type));
    }
    return proto;
}

// What a piece is in a text. Google's tokenizer.model has turns and pictures as user-defined pieces, between brackets
// as HTML tags are, which texts may hold.
std::string text_of(const Piece& piece) {
    constexpr std::string_view mark = "\xE2\x96\x81";
    std::string text = piece.text;
    switch (piece.type) {
        case PieceType::control:
        case PieceType::unknown:
            return "";
        case PieceType::byte:
            return {static_cast<char>(std::stoi(text.substr(3, 2), nullptr, 16))};
        case PieceType::user_defined:
            for (const char* part : {"_of_turn>", "_of_image>", "image_soft_token>", "<unused", "[multimodal]"})
                if (text.find(part) != std::string::npos) return "";
            break;
        default:
            break;
    }
    for (size_t at = 0; (at = text.find(mark, at)) != std::string::npos;) text.replace(at, mark.size(), " ");
    return text;
}

std::string_view bytes_of(const MappedFile& map) { return {reinterpret_cast<const char*>(map.data()), map.size()}; }

bool is_gemma_gguf(const ModelFile& file) {
    return file.metadata("general.architecture").value_or("").rfind("gemma", 0) == 0 &&
           file.value("tokenizer.ggml.tokens");
}

SentencepieceModel read_gguf(const ModelFile& file) {
    const auto value = [&](const std::string& name, GgufValue::Kind kind) -> const GgufValue& {
        const GgufValue* found = file.value("tokenizer.ggml." + name);
        if (!found || found->kind != kind)
            throw Error(ErrorCode::model_file, "[" + file.path() + "] the GGUF file has no usable 'tokenizer.ggml." +
                                                   name +
                                                   "'; give a file made by llama.cpp's converter, or tokenizer.model");
        if (std::max<size_t>(found->count, found->strings.size()) > max_tokens)
            throw Error(ErrorCode::model_file, "[" + file.path() + "] 'tokenizer.ggml." + name +
                                                   "' is longer than any Gemma's; download it again");
        return *found;
    };
    const std::string kind(value("model", GgufValue::Kind::string).string);
    if (kind != "llama")
        throw Error(ErrorCode::model_mismatch, "[" + file.path() + "] the tokenizer is of the kind '" + kind +
                                                   "', expected 'llama' (sentencepiece); give a GGUF file of Gemma 3");
    const std::vector<std::string_view>& tokens = value("tokens", GgufValue::Kind::array).strings;
    std::vector<double> scores;
    if (file.value("tokenizer.ggml.scores"))
        scores = value("scores", GgufValue::Kind::array).numbers();
    else  // only their order counts, and Gemma's pieces are numbered from the likeliest on
        for (size_t id = 0; id < tokens.size(); ++id) scores.push_back(-static_cast<double>(id));
    return read_tokenizer_arrays(tokens, scores, value("token_type", GgufValue::Kind::array).numbers(),
                                 value("bos_token_id", GgufValue::Kind::integer).integer,
                                 value("unknown_token_id", GgufValue::Kind::integer).integer, file.path());
}

}  // namespace

std::unique_ptr<Tokenizer> Gemma3Tokenizer::load(const ModelFiles& files) {
    for (const auto& file : files.files())
        if (is_gemma_gguf(*file)) return std::make_unique<Gemma3Tokenizer>(read_gguf(*file));

    // ComfyUI's single files of a text encoder have the tokenizer.model as a tensor of bytes.
    if (const TensorInfo* inside = files.find("spiece_model");
        inside && (inside->dtype == "U8" || inside->dtype == "I8")) {
        inside->used = true;
        const std::string_view bytes(reinterpret_cast<const char*>(inside->data), inside->nbytes);
        return std::make_unique<Gemma3Tokenizer>(read_tokenizer_model(bytes, inside->file->path() + "] [spiece_model"));
    }

    using Reader = SentencepieceModel (*)(std::string_view, const std::string&);
    constexpr std::pair<const char*, Reader> readers[] = {{"tokenizer.model", read_tokenizer_model},
                                                          {"tokenizer.json", read_tokenizer_json}};
    for (const auto& [name, read] : readers) {
        for (const std::string& folder : files.folders()) {
            const std::string path = (fs::path(folder) / name).string();
            std::error_code ignored;
            if (!fs::exists(path, ignored)) continue;
            const MappedFile map(path);
            if (map.size() > static_cast<size_t>(max_json_file))
                throw Error(ErrorCode::model_file, "[" + path + "] is larger than " +
                                                       std::to_string(max_json_file >> 20) +
                                                       " MiB; that is no tokenizer");
            return std::make_unique<Gemma3Tokenizer>(read(bytes_of(map), path));
        }
    }

    std::string where;
    for (const std::string& folder : files.folders()) where += (where.empty() ? "" : ", ") + folder;
    throw Error(ErrorCode::model_file,
                "[tokenizer] found neither a Gemma GGUF file among the files given nor a "
                "tokenizer.model or tokenizer.json in their folders (" +
                    where + "); give the folder of the Gemma 3 text encoder");
}

Gemma3Tokenizer::Gemma3Tokenizer(const SentencepieceModel& model)
    : Tokenizer(model.source, static_cast<int32_t>(model.pieces.size()), model.bos, true, model.literals),
      processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
    constexpr int only_fatal = 3;
    sentencepiece::SetMinLogLevel(only_fatal);
    const auto status = processor_->Load(make_proto(model));
    if (!status.ok())
        throw Error(ErrorCode::model_file,
                    "[" + source() + "] the tokenizer was refused by sentencepiece: " + status.error_message());
    for (const Piece& piece : model.pieces) texts_.push_back(text_of(piece));
}

Gemma3Tokenizer::~Gemma3Tokenizer() = default;

std::string Gemma3Tokenizer::decode(const std::vector<int32_t>& ids) const {
    std::string text;
    for (const int32_t id : ids)
        if (id >= 0 && static_cast<size_t>(id) < texts_.size()) text += texts_[static_cast<size_t>(id)];
    for (size_t at = 0; (at = find_invalid_utf8(text)) != std::string::npos;) text.replace(at, 1, "\xEF\xBF\xBD");
    return text;
}

void Gemma3Tokenizer::append_pieces(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> pieces;
    const auto status = processor_->Encode(text, &pieces);
    if (!status.ok())
        throw Error(ErrorCode::invalid_request,
                    std::string("[tokenize] sentencepiece refused the text: ") + status.error_message());
    ids.insert(ids.end(), pieces.begin(), pieces.end());
}

}  // namespace sdltx
