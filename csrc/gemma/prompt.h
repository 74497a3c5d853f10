// What is done to a prompt before it is tokenised (text.md section 1).
#pragma once

#include <string_view>

namespace sdltx {

// Without the white space around it, as Python's str.strip() sees it; `s` is valid UTF-8.
std::string_view strip(std::string_view s);

}  // namespace sdltx
