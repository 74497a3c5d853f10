// Prompt enhancement: the text encoder writes a prompt out before it encodes it (prompt-enhancement.md).

#include <vector>

#include "base/log.h"
#include "gemma/prompt.h"
#include "gemma/writing.h"
#include "pipeline.h"

namespace sdltx {

namespace {

constexpr int64_t most_tokens = 4096, written_tokens = 512;

// What the reference's own texts ask for, in words of ours: theirs are under their model's licence.
constexpr const char* own_system_text =
    "You turn a short idea for a video clip into one detailed prompt for a model that makes pictures and sound "
    "together.\n"
    "\n"
    "- Keep every element of the idea. Where it is vague, add light, materials, place and movement, but nobody new.\n"
    "- Tell what happens in its order, in the present progressive, with words such as as, then and while. No cuts, no "
    "time stamps.\n"
    "- Tell what is heard together with what makes it: steps, wind, machines, voices; music only if it belongs there.\n"
    "- If the idea wants speech, give the words in quotation marks, and the voice. If not, nobody speaks.\n"
    "- The camera stays where it is unless the idea moves it.\n"
    "- Only what can be seen and heard. Plain colours, mild words, no feelings read into faces.\n"
    "\n"
    "Answer with one paragraph in English of 80 to 200 words: no heading, no list, no remark. If the idea is unsafe, "
    "answer with it as it is.\n";

}  // namespace

void Pipeline::require_writing() const {
    require({Part::text_encoder});
    if (!networks_->text_encoder->writes())
        throw Error(ErrorCode::model_mismatch,
                    "[enhance] the text encoder of " + info_.name +
                        " does not write texts; models with Gemma 3 (LTX-2.3, 2.0) do. Leave enhance out");
}

bool Pipeline::writes(const Request& request) const {
    if (!request.options.enhance.value_or(false)) return false;
    require_writing();
    return true;
}

std::vector<int32_t> Pipeline::writing_prompt(const std::string& prompt, const std::string& system) const {
    const std::string_view idea = strip(prompt);
    if (idea.empty())
        throw Error(ErrorCode::invalid_request, "[enhance] the prompt is empty; there is nothing to write");
    std::vector<int32_t> ids = chat_prompt(*networks_->tokenizer, system.empty() ? own_system_text : system,
                                           "user prompt: " + std::string(idea));
    if (static_cast<int64_t>(ids.size()) > most_tokens)
        throw Error(ErrorCode::invalid_request, "[enhance] system text and prompt have " + std::to_string(ids.size()) +
                                                    " tokens, at most " + std::to_string(most_tokens) +
                                                    " are possible; use shorter ones");
    return ids;
}

std::string Pipeline::idea_of(const Request& request) {
    return request.options.enhanced_from.value_or(request.options.prompt.value_or(""));
}

MemoryUse Pipeline::writing_memory(const std::string& prompt, const std::string& system) {
    constexpr int64_t usual = 1024;  // where the prompt is not known yet
    const int64_t ids = strip(prompt).empty() ? usual : static_cast<int64_t>(writing_prompt(prompt, system).size());
    return networks_->text_encoder->measure_reading(ids, ids + written_tokens);
}

std::string Pipeline::enhance(const std::string& prompt, const std::string& system, uint64_t seed,
                              const Progress& progress) {
    const Turn turn(*this);
    require_writing();
    TextTower& tower = *networks_->text_encoder;
    const std::vector<int32_t> ids = writing_prompt(prompt, system);
    const WritingHold hold(*this, progress, writing_memory(prompt, system));
    report(progress, "enhance", 0, written_tokens);
    const std::string text =
        written_answer(tower, *networks_->tokenizer, ids, written_tokens, seed, tracing(),
                       [&](int64_t tokens) { report(progress, "enhance", tokens, written_tokens); });
    report(progress, "enhance", written_tokens, written_tokens);
    if (!text.empty()) return text;
    log(30, "[enhance] the text model wrote nothing; the prompt stays as it is");
    return prompt;
}

Array Pipeline::next_scores(const std::vector<int32_t>& ids, const std::vector<int32_t>& then,
                            const Progress& progress) {
    const Turn turn(*this);
    require_writing();
    const int64_t most = static_cast<int64_t>(ids.size() + then.size());
    TextTower& tower = *networks_->text_encoder;
    const WritingHold hold(*this, progress, tower.measure_reading(static_cast<int64_t>(ids.size()), most));
    TextTower::Reader reader(tower, most, tracing());
    Array out{{static_cast<int64_t>(then.size()) + 1, 0}, reader.read(ids)};
    out.shape[1] = static_cast<int64_t>(out.data.size());
    for (const int32_t id : then) {
        const std::vector<float> scores = reader.read({id});
        out.data.insert(out.data.end(), scores.begin(), scores.end());
    }
    return out;
}

Pipeline::WritingHold::WritingHold(Pipeline& pipeline, const Progress& progress, const MemoryUse& use)
    : pipeline_(pipeline) {
    TextTower& tower = *pipeline.networks_->text_encoder;
    tower.use_head(true);
    try {
        hold_.emplace(pipeline, std::vector<Weights*>{&tower.weights()}, progress, use);
    } catch (...) {
        tower.use_head(false);
        throw;
    }
}

Pipeline::WritingHold::~WritingHold() {
    hold_.reset();
    pipeline_.networks_->text_encoder->use_head(false);
}

}  // namespace sdltx
