// Parses a `tokenizer.json`. Its vocabulary and merges, a million strings in Gemma's file, go straight into vectors:
// as JSON values they would take two thirds of the loading time.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace sdltx {

// The Gemmas have half and two thirds as many.
constexpr size_t max_tokens = 1 << 19, max_merges = 3 << 18;

struct TokenizerMerge {
    std::string joined;
    size_t left;    // bytes of the first
    int parts = 0;  // that were joined

    bool is_pair() const { return parts == 2 && left > 0 && left < joined.size(); }
};

struct TokenizerJson {
    nlohmann::json rest;                                 // all but `model.vocab` and `model.merges`
    std::vector<std::pair<std::string, int64_t>> vocab;  // token, id (-1: not an integer)
    std::deque<TokenizerMerge> merges;                   // first rank first; growing takes no copy of all
    std::string error;                                   // "is not JSON ..."; empty if nothing is wrong
};

// What of it changes what a token is and is not as in the files of the Gemmas: "has 'dropout' = 0.1, expected null";
// empty if nothing is.
std::string strange_option(const TokenizerJson& file);

class TokenizerJsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
    static TokenizerJson parse(std::string_view text) {
        TokenizerJsonReader reader;
        nlohmann::json::sax_parse(text, &reader);
        return std::move(reader.result_);
    }

    bool null() override { return value(nullptr); }
    bool boolean(bool v) override { return value(v); }
    bool number_integer(number_integer_t v) override { return value(v); }
    bool number_unsigned(number_unsigned_t v) override { return number_integer(static_cast<int64_t>(v)); }
    bool number_float(number_float_t v, const string_t&) override { return value(v); }
    bool binary(binary_t&) override { return false; }  // does not occur in JSON text

    bool string(string_t& v) override {
        if (part_ != Part::merges) return value(std::move(v));
        if (depth_ == 1) {  // the older form, "left right"
            const size_t space = v.find(' ');
            if (space != std::string::npos) v.erase(space, 1);
            const bool two = space != std::string::npos && v.find(' ', space) == std::string::npos;
            return merge({std::move(v), two ? space : 0, two ? 2 : 1});
        }
        if (++merge_.parts == 1) merge_.left = v.size();
        merge_.joined += v;
        return true;
    }

    bool key(string_t& v) override {
        if (open_.size() == 1) outer_key_ = v;
        key_ = std::move(v);
        return true;
    }

    bool start_object(std::size_t) override { return start(Part::vocab, "vocab", nlohmann::json::object()); }
    bool start_array(std::size_t) override { return start(Part::merges, "merges", nlohmann::json::array()); }
    bool end_object() override { return end(); }

    bool end_array() override {
        if (part_ == Part::merges && depth_ == 2) {
            if (!merge(std::move(merge_))) return false;
            merge_ = {};
        }
        return end();
    }

    bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& error) override {
        return fail(std::string("is not JSON (") + error.what() + ")");
    }

 private:
    enum class Part { rest, vocab, merges };

    bool value(nlohmann::json v) {
        if (part_ == Part::rest) return put(std::move(v));
        if (part_ == Part::merges) return fail("holds a merge that is no pair");
        if (depth_ != 1) return true;
        if (result_.vocab.size() == max_tokens) return fail("has more than " + std::to_string(max_tokens) + " tokens");
        result_.vocab.emplace_back(std::move(key_), v.is_number_integer() ? v.get<int64_t>() : -1);
        return true;
    }

    bool merge(TokenizerMerge m) {
        if (!m.is_pair()) return fail("holds a merge that is no pair");
        if (result_.merges.size() == max_merges) return fail("has more than " + std::to_string(max_merges) + " merges");
        result_.merges.push_back(std::move(m));
        return true;
    }

    bool fail(const std::string& why) {
        result_.error = why;
        return false;
    }

    // Where it is now, null if there are too many.
    nlohmann::json* put(nlohmann::json v) {
        if (++values_ > max_json_values) {
            fail("holds more than " + std::to_string(max_json_values) + " values beside its tokens");
            return nullptr;
        }
        if (open_.empty()) return &(result_.rest = std::move(v));
        nlohmann::json& parent = *open_.back();
        if (parent.is_object()) return &(parent[key_] = std::move(v));
        parent.push_back(std::move(v));
        return &parent.back();
    }

    bool start(Part part, const char* name, nlohmann::json empty) {
        if (part_ != Part::rest) {
            ++depth_;
        } else if (open_.size() == 2 && outer_key_ == "model" && key_ == name) {
            part_ = part;
            depth_ = 1;
        } else if (open_.size() >= max_json_depth) {
            return fail("is nested more than " + std::to_string(max_json_depth) + " levels deep");
        } else {
            open_.push_back(put(std::move(empty)));
            return open_.back() != nullptr;
        }
        return true;
    }

    bool end() {
        if (part_ == Part::rest)
            open_.pop_back();
        else if (--depth_ == 0)
            part_ = Part::rest;
        return true;
    }

    TokenizerJson result_;
    std::vector<nlohmann::json*> open_;  // objects and arrays around the current value
    std::string outer_key_, key_;
    TokenizerMerge merge_{};
    Part part_ = Part::rest;
    size_t values_ = 0;  // of the rest
    int depth_ = 0;      // inside vocab or merges
};

}  // namespace sdltx
