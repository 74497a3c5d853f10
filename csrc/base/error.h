// The one exception type of the core. Front ends turn its code into a Python class or a C status.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "export.h"

namespace sdltx {

enum class ErrorCode {
    model_file = 1,       // a file is missing, truncated, or not a model
    model_mismatch = 2,   // files are readable but do not make up the wanted model
    out_of_memory = 3,    // host or device memory does not suffice
    invalid_request = 4,  // an argument is outside its range
    cancelled = 5,        // a progress callback asked to stop
    backend = 6,          // a device failed or does not exist
    busy = 7,             // another thread is using the pipeline
};

// `text` is one line: [where] what is wrong, what was expected, what to do. What it quotes of files and arguments may
// hold anything: characters that control terminals are written out, and what nobody reads is cut.
class SDLTX_EXPORT Error : public std::runtime_error {
 public:
    Error(ErrorCode code, const std::string& text);
    ErrorCode code() const { return code_; }

 private:
    ErrorCode code_;
};

// What Vulkan's drivers say through ggml, which throws it, as an error of ours; none if it is something else.
SDLTX_EXPORT std::optional<Error> device_error(const std::exception& e);

}  // namespace sdltx
