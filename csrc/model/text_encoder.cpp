#include "text_encoder.h"

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "gemma/prompt.h"
#include "gemma/writing.h"
#include "gemma3/encoder.h"
#include "gemma3/tokenizer.h"
#include "gemma4/encoder.h"
#include "gemma4/tokenizer.h"
#include "ltxv/noise.h"
#include "ltxv/version.h"

namespace sdltx {

namespace {

constexpr const char* probe_name = "model.diffusion_model.patchify_proj.weight";

const ModelFile& file_of_encoder(const ModelFiles& files) {
    return *files.find("language_model.model.embed_tokens.weight")->file;
}

// What the transformer among the files says it was trained with; empty if it says nothing, as none before 2.4.
std::string wanted_training(const ModelFiles& files) {
    constexpr const char* key = "gemma_source_checkpoint";
    const std::string where = std::string(key) + " metadata";
    const TensorInfo* probe = files.find(probe_name);
    const auto source = probe ? probe->file->metadata(key) : std::nullopt;
    return source ? require<std::string>(parse_json(*source, where), "gemma_version", where) : "";
}

// States of another member of the family would mean nothing to a transformer (ltx-2.5.md section 2).
void check_family(const ModelFiles& files, const ModelConfig& config, bool gemma4) {
    if (!config.transformer) return;
    const bool wants_gemma4 = !wanted_training(files).empty() || is_since(config.version, "2.4");
    if (gemma4 == wants_gemma4) return;
    throw Error(ErrorCode::model_mismatch,
                "[" + file_of_encoder(files).path() + "] the text encoder is " +
                    (gemma4 ? "Gemma 4, which belongs to LTX-2.5; LTX-2.3 and 2.0 take Gemma 3 12B, give its folder or "
                              "GGUF"
                            : "not Gemma 4 12B, which LTX-2.5 takes as it was released with it; give "
                              "gemma4-12b-with-proj-ltx-2.5"));
}

void check_training(const ModelFiles& files, const ModelConfig& config, const std::string& given) {
    if (!config.transformer) return;
    const std::string wanted = wanted_training(files), path = file_of_encoder(files).path();
    const std::string named = wanted.empty() ? "another one, which it does not name" : wanted;
    const bool declares = files.find(probe_name)->file->metadata("model_version").has_value();
    if (!given.empty() && wanted.empty() && !declares)
        log(30, "[load] " + files.find(probe_name)->file->path() +
                    " says nothing of its version; LTX-2.5 is taken to belong to " + given);
    else if (given.empty())
        log(30, "[load] " + path + " does not say which training of Gemma 4 it is; LTX-2.5 was trained with " +
                    (wanted.empty() ? "one of its own" : wanted));
    else if (given != wanted)
        throw Error(ErrorCode::model_mismatch, "[" + path + "] the text encoder is " + given + ", and " +
                                                   files.find(probe_name)->file->path() + " was trained with " + named +
                                                   "; use the text encoder that it was released with");
}

}  // namespace

std::unique_ptr<TextTower> make_text_encoder(const ModelFiles& files, const ModelConfig& config, Workspace& workspace) {
    const bool gemma4 = Gemma4Config::is_among(files);
    check_family(files, config, gemma4);
    if (!gemma4) return std::make_unique<Gemma3Encoder>(files, workspace);
    auto encoder = std::make_unique<Gemma4Encoder>(files, workspace);
    check_training(files, config, encoder->version());
    return encoder;
}

std::unique_ptr<Tokenizer> load_tokenizer(const ModelFiles& files) {
    if (Gemma4Config::is_among(files) || files.find("tokenizer_json")) return Gemma4Tokenizer::load(files);
    return Gemma3Tokenizer::load(files);
}

std::string written_answer(TextTower& tower, const Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                           int64_t most, uint64_t seed, Trace* trace,
                           const std::function<void(int64_t tokens)>& on_token) {
    const std::vector<int32_t> ends = ends_of_answers(tokenizer);
    TextTower::Reader reader(tower, static_cast<int64_t>(prompt.size()) + most, trace);
    std::vector<float> scores = reader.read(prompt, [&](int64_t) { on_token(0); });
    std::vector<int32_t> answer;
    for (;;) {
        const double uniform = uniform_noise(seed, NoiseStream::text, static_cast<uint32_t>(answer.size()));
        const int32_t next = drawn_token(scores, Drawing{}, uniform);
        if (std::find(ends.begin(), ends.end(), next) != ends.end()) break;
        answer.push_back(next);
        if (static_cast<int64_t>(answer.size()) == most) break;
        on_token(static_cast<int64_t>(answer.size()));
        scores = reader.read({next});
    }
    return std::string(strip(tidied(tokenizer.decode(answer))));
}

std::string write_answer(const ModelFiles& files, const std::string& system, const std::string& user, int64_t most,
                         uint64_t seed, bool exact, const std::string& device) {
    const Backend backend(device, exact, 0);
    Workspace workspace(backend);
    const std::unique_ptr<TextTower> tower = make_text_encoder(files, {}, workspace);
    const std::unique_ptr<Tokenizer> tokenizer = load_tokenizer(files);
    check_weights({&tower->weights()});
    tower->use_head(true);
    tower->weights().acquire({});
    return written_answer(*tower, *tokenizer, chat_prompt(*tokenizer, system, user), most, seed, nullptr,
                          [](int64_t) {});
}

Array encode_tokens(const ModelFiles& files, const std::vector<int32_t>& ids, bool exact, const std::string& device) {
    const Backend backend(device, exact, 0);
    Workspace workspace(backend);
    const std::unique_ptr<TextTower> encoder = make_text_encoder(files, {}, workspace);
    check_weights({&encoder->weights()});
    encoder->weights().acquire({});
    return encoder->encode(ids, nullptr);
}

}  // namespace sdltx
