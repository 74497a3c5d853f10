#include "json.h"

#include <filesystem>
#include <fstream>
#include <unordered_set>

namespace sdltx {

namespace {

// Of one value; each is copied a few times. The longest that are known, licences, have some kilobytes.
constexpr size_t longest_text = size_t{8} << 20;

// Reads a text for what it asks for, and keeps nothing. (The parser's own callback looks at all members of an object
// each time one of them ends.)
class Census : public nlohmann::json_sax<Json> {
 public:
    explicit Census(size_t most_members) : most_members_(most_members) {}

    size_t values = 0;
    bool too_deep = false, too_many_members = false, too_long = false;
    size_t wrong_byte = 0;
    std::string repeated_key;  // of the outermost object

    bool null() override { return count(); }
    bool boolean(bool) override { return count(); }
    bool number_integer(number_integer_t) override { return count(); }
    bool number_unsigned(number_unsigned_t) override { return count(); }
    bool number_float(number_float_t, const string_t&) override { return count(); }
    bool string(string_t& text) override {
        too_long = text.size() > longest_text;
        return !too_long && count();
    }
    bool binary(binary_t&) override { return count(); }
    bool start_object(std::size_t) override { return descend(); }
    bool start_array(std::size_t) override { return descend(); }
    bool end_object() override { return ascend(); }
    bool end_array() override { return ascend(); }
    bool key(string_t& name) override {
        if (depth_ != 1) return true;
        if (!keys_.insert(name).second) repeated_key = name;
        too_many_members = keys_.size() > most_members_;
        return !too_many_members;
    }
    bool parse_error(std::size_t byte, const std::string&, const nlohmann::detail::exception&) override {
        wrong_byte = byte;
        return false;
    }

 private:
    bool count() { return ++values <= max_json_values; }
    bool descend() {
        too_deep = ++depth_ > max_json_depth;
        return !too_deep && count();
    }
    bool ascend() {
        --depth_;
        return true;
    }
    size_t depth_ = 0, most_members_;
    std::unordered_set<std::string> keys_;
};

// What is wrong with a text; empty if nothing is.
std::string problem_of(std::string_view text, JsonMembers& members) {
    Census census(members.most);
    const bool well_formed = Json::sax_parse(text, &census);
    members.repeated = census.repeated_key;
    if (census.too_deep) return "is nested more than " + std::to_string(max_json_depth) + " levels deep";
    if (census.too_long) return "holds a text of more than " + std::to_string(longest_text >> 20) + " MiB";
    if (census.too_many_members) return "lists more than " + std::to_string(members.most) + " entries";
    if (census.values > max_json_values) return "holds more than " + std::to_string(max_json_values) + " values";
    if (!well_formed) return "is not valid JSON at byte " + std::to_string(census.wrong_byte);
    return "";
}

}  // namespace

Json parse_json_text(std::string_view text, ErrorCode code, const std::string& where, const std::string& hint,
                     JsonMembers* members) {
    JsonMembers any{SIZE_MAX};
    const std::string problem = problem_of(text, members ? *members : any);
    if (!problem.empty()) throw Error(code, "[" + where + "] " + problem + hint);
    return Json::parse(text);
}

Json parse_json_value(std::string_view text, const std::string& where, JsonMembers* members) {
    return parse_json_text(text, ErrorCode::model_file, where, "; the file is damaged", members);
}

Json parse_json(std::string_view text, const std::string& where) {
    Json j = parse_json_value(text, where);
    if (!j.is_object()) throw Error(ErrorCode::model_file, "[" + where + "] is not a JSON object; the file is damaged");
    return j;
}

Json parse_json_file(const std::string& path) {
    // A pipe would have us wait for somebody who writes into it.
    std::error_code problem;
    if (!std::filesystem::is_regular_file(path, problem))
        throw Error(ErrorCode::model_file, "[" + path + "] is not a regular file");
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    const auto size = in ? static_cast<int64_t>(in.tellg()) : -1;
    if (size < 0) throw Error(ErrorCode::model_file, "[" + path + "] cannot read the file");
    if (size > max_json_file)
        throw Error(ErrorCode::model_file, "[" + path + "] is larger than " + std::to_string(max_json_file >> 20) +
                                               " MiB; that is none of the files that describe a model");
    std::string text(static_cast<size_t>(size), '\0');
    in.seekg(0);
    if (!in.read(text.data(), size)) throw Error(ErrorCode::model_file, "[" + path + "] cannot read the file");
    return parse_json_value(text, path);
}

std::string spell(const Json& value) {
    constexpr size_t most = 80;
    if (value.is_array()) return "a list of " + std::to_string(value.size());
    if (value.is_object()) return "an object";
    std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
    if (text.size() > most) text = text.substr(0, most - 3) + "...";
    return text;
}

}  // namespace sdltx
