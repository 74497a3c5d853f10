#include "types.h"

#include <fnmatch.h>

#include <cmath>
#include <locale>
#include <sstream>

#include "error.h"

namespace sdltx {

std::string spell_number(double value) {
    if (std::abs(value) < 1e15 && value == std::floor(value)) return std::to_string(static_cast<int64_t>(value));
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << value;
    return text.str();
}

std::string spell_shape(const std::vector<int64_t>& shape) {
    std::string s = "(";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + ")";
}

bool Trace::wants(const std::string& name) const {
    for (auto& p : patterns)
        if (fnmatch(p.c_str(), name.c_str(), 0) == 0) return true;
    return false;
}

void report(const Progress& progress, const char* phase, int64_t done, int64_t total) {
    if (progress && !progress({phase, done, total}))
        throw Error(ErrorCode::cancelled, std::string("[") + phase + "] cancelled by the progress callback");
}

}  // namespace sdltx
