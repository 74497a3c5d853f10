#include "prompt.h"

#include <cstdint>
#include <cstring>

namespace sdltx {

namespace {

// Length of the white space at the start of valid UTF-8, as Python's str.strip() sees it; 0 when there is none.
size_t leading_space(std::string_view s) {
    if (s.empty()) return 0;
    const auto c = static_cast<uint8_t>(s[0]);
    if ((c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20)) return 1;
    for (const char* wide :
         {"\u0085", "\u00A0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007",
          "\u2008", "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"})
        if (s.rfind(wide, 0) == 0) return std::strlen(wide);
    return 0;
}

}  // namespace

std::string_view strip(std::string_view s) {
    while (size_t n = leading_space(s)) s.remove_prefix(n);
    // From the end: step back to the start of the last code point and look forward.
    for (;;) {
        size_t at = s.size();
        while (at > 0 && (static_cast<uint8_t>(s[at - 1]) & 0xC0) == 0x80) --at;
        if (at == 0 || leading_space(s.substr(at - 1)) == 0) return s;
        s = s.substr(0, at - 1);
    }
}

}  // namespace sdltx
