#include "writing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "prompt.h"

namespace sdltx {

namespace {

constexpr const char *turn = "<start_of_turn>", *end_of_turn = "<end_of_turn>";

void refuse_marks(std::string_view text, const char* what) {
    for (const char* mark : {turn, end_of_turn, "<start_of_image>", "<image_soft_token>", "<bos>", "<eos>"})
        if (text.find(mark) != std::string_view::npos)
            throw Error(ErrorCode::invalid_request, std::string("[enhance] the ") + what + " contains " + mark +
                                                        ", which controls the text model; leave it out");
}

uint32_t code_point(std::string_view text, size_t& at) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t lead = byte(at++);
    const int more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    uint32_t code = more == 0 ? lead : lead & (0x3Fu >> more);
    for (int i = 0; i < more && at < text.size(); ++i) code = code << 6 | (byte(at++) & 0x3Fu);
    return code;
}

// A letter of any script: all beyond ASCII but the blocks of punctuation, symbols, digits and pictures.
bool is_letter(uint32_t c) {
    if (c < 0x80) return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    constexpr std::array<std::pair<uint32_t, uint32_t>, 15> others{{{0x80, 0xA9},
                                                                    {0xAB, 0xB4},
                                                                    {0xB6, 0xB9},
                                                                    {0xBB, 0xBF},
                                                                    {0xD7, 0xD7},
                                                                    {0xF7, 0xF7},
                                                                    {0x0660, 0x0669},
                                                                    {0x2000, 0x2070},
                                                                    {0x2080, 0x208F},
                                                                    {0x20A0, 0x2BFF},
                                                                    {0x2E00, 0x3004},
                                                                    {0x3007, 0x3030},
                                                                    {0xE000, 0xF8FF},
                                                                    {0xFE00, 0xFE6F},
                                                                    {0xFF00, 0xFF20}}};
    if (c == 0xFFFD || c >= 0x1F000) return c >= 0x20000 && c < 0x32000;
    return std::none_of(others.begin(), others.end(), [c](auto& of) { return c >= of.first && c <= of.second; });
}

}  // namespace

std::vector<int32_t> chat_prompt(const Tokenizer& tokenizer, std::string_view system, std::string_view user) {
    refuse_marks(system, "system text");
    refuse_marks(user, "prompt");
    // The template writes <bos> and the tokenizer adds one: the reference has both.
    std::string text = std::string("<bos>") + turn + "user\n";
    text += system;
    text += "\n\n";
    text += strip(user);
    text += std::string(end_of_turn) + "\n" + turn + "model\n";
    return tokenizer.encode(text);
}

std::vector<int32_t> ends_of_answers(const Tokenizer& tokenizer) {
    std::vector<int32_t> ends;
    for (const char* name : {"<eos>", end_of_turn})
        if (const int32_t id = tokenizer.id_of(name); id >= 0) ends.push_back(id);
    return ends;
}

int32_t drawn_token(const std::vector<float>& scores, const Drawing& how, double uniform) {
    std::vector<int32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    const size_t count = std::min(std::max<size_t>(how.candidates, 1), scores.size());
    const auto likelier = [&](int32_t a, int32_t b) {
        const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
        return x != y ? x > y : a < b;
    };
    std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), likelier);
    order.resize(count);
    const double most = scores[static_cast<size_t>(order.front())];
    std::vector<double> up_to;
    double sum = 0;
    for (const int32_t id : order)
        up_to.push_back(sum += std::exp((scores[static_cast<size_t>(id)] - most) / how.temperature));
    const auto found = std::upper_bound(up_to.begin(), up_to.end(), uniform * sum);
    return order[static_cast<size_t>(
        std::min<std::ptrdiff_t>(found - up_to.begin(), static_cast<std::ptrdiff_t>(count) - 1))];
}

std::string tidied(std::string text) {
    constexpr std::pair<const char*, const char*> plain[] = {
        {"\u2018", "'"}, {"\u2019", "'"}, {"\u2032", "'"}, {"\u201C", "\""}, {"\u201D", "\""},
        {"\u2014", "-"}, {"\u2013", "-"}, {"\u2212", "-"}, {"\u00A0", " "},
    };
    for (auto& [from, to] : plain)
        for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;)
            text.replace(at, std::string_view(from).size(), to);
    for (size_t at = 0; at < text.size();) {
        const size_t start = at;
        if (is_letter(code_point(text, at))) return text.substr(start);
    }
    return text;
}

}  // namespace sdltx
