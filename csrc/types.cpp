#include "types.h"

#include <fnmatch.h>

#include "error.h"

namespace sdltx {

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
