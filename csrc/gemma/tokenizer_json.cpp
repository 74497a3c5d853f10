#include "tokenizer_json.h"

namespace sdltx {

std::string strange_option(const TokenizerJson& file) {
    using json = nlohmann::json;
    std::string strange;
    const auto want = [&](const json& object, const char* key, const json& value) {
        const auto it = object.find(key);
        const json found = it == object.end() ? json() : *it;
        if (strange.empty() && found != value && !(found.is_null() && value == json(false)))
            strange = std::string("has '") + key + "' = " + spell(found) + ", expected " + spell(value);
    };
    const json& root = file.rest;
    const json model = root.contains("model") && root["model"].is_object() ? root["model"] : json::object();
    want(model, "type", "BPE");
    want(model, "byte_fallback", true);
    want(model, "ignore_merges", false);
    want(model, "dropout", nullptr);
    want(model, "continuing_subword_prefix", nullptr);
    want(model, "end_of_word_suffix", nullptr);
    want(root, "normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}});
    // Splitting at spaces does nothing once the normalizer has replaced them, so Gemma's files come with and without.
    if (root.contains("pre_tokenizer") && !root["pre_tokenizer"].is_null())
        want(
            root, "pre_tokenizer",
            {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "MergedWithPrevious"}, {"invert", false}});
    const json added = root.contains("added_tokens") ? root["added_tokens"] : json::array();
    for (const json& token : added)
        for (const char* option : {"single_word", "lstrip", "rstrip", "normalized"})
            if (const auto it = token.is_object() ? token.find(option) : token.end();
                strange.empty() && it != token.end() && !it->is_null() && *it != json(false))
                strange = std::string("has an added token with '") + option + "' set";
    return strange;
}

}  // namespace sdltx
