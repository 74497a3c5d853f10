// One line at a time to whoever listens.
#pragma once

#include <string>

#include "export.h"

namespace sdltx {

// Log lines of this library, and of ggml once a Backend was made; level is Python's logging level (10 debug ... 40
// error). Process wide, as ggml's is. Called on whatever thread logs.
using LogCallback = void (*)(int level, const char* text, void* user);
SDLTX_EXPORT void set_log(LogCallback callback, void* user);
SDLTX_EXPORT void log(int level, const std::string& text);

}  // namespace sdltx
