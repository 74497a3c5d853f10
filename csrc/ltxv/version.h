// Versions of checkpoints (ltx-2.5.md section 2). No ggml.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace sdltx {

// The numbers that "2.5.0" begins with, up to the first part that is none; parts are separated by '.' or '-'.
inline std::vector<int> version_numbers(const std::string& text) {
    std::vector<int> numbers;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find_first_of(".-", at), text.size());
        int number = 0;
        for (size_t i = at; i < end; ++i) {
            if (text[i] < '0' || text[i] > '9' || end - at > 4) return numbers;
            number = 10 * number + (text[i] - '0');
        }
        if (end == at) return numbers;
        numbers.push_back(number);
        at = end + 1;
    }
    return numbers;
}

// Whether it is `since` or a later one; what is not told is older than all.
inline bool is_since(const std::string& version, const std::string& since) {
    return version_numbers(version) >= version_numbers(since);
}

}  // namespace sdltx
