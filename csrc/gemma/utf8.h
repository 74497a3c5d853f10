// UTF-8 validation: sentencepiece would replace malformed bytes silently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sdltx {

// Offset of the first byte that is not part of a well-formed UTF-8 sequence (Unicode 15, table 3-7), or npos.
inline size_t find_invalid_utf8(std::string_view text) {
    for (size_t at = 0; at < text.size();) {
        const auto byte = [&](size_t i) { return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0u; };
        const auto tail = [&](size_t i) { return byte(i) >= 0x80 && byte(i) <= 0xBF; };
        const unsigned lead = byte(0);
        size_t length = 0;
        if (lead < 0x80) {
            length = 1;
        } else if (lead >= 0xC2 && lead <= 0xDF) {
            length = tail(1) ? 2 : 0;
        } else if (lead >= 0xE0 && lead <= 0xEF) {
            const bool overlong = lead == 0xE0 && byte(1) < 0xA0, surrogate = lead == 0xED && byte(1) > 0x9F;
            length = tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            const bool overlong = lead == 0xF0 && byte(1) < 0x90, too_large = lead == 0xF4 && byte(1) > 0x8F;
            length = tail(1) && tail(2) && tail(3) && !overlong && !too_large ? 4 : 0;
        }
        if (length == 0) return at;
        at += length;
    }
    return std::string_view::npos;
}

// Whether valid UTF-8 `text` is exactly one code point.
inline bool is_one_codepoint(std::string_view text) {
    size_t starts = 0;
    for (const char c : text) starts += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
    return starts == 1;
}

}  // namespace sdltx
