// The configuration of a part whose file has none: from the shapes of its tensors, and the release's values (2.3) where
// shapes do not tell. In the form of the release's `config` metadata, so that the same code reads and checks it.
#pragma once

#include <string>

#include "base/export.h"
#include "base/json.h"
#include "ggml/model_file.h"

namespace sdltx {

// section: "transformer", "vae", "audio_vae" or "vocoder". Throws Error(model_mismatch) when tensors that tell the
// sizes are missing.
Json config_from_shapes(const ModelFiles& files, const std::string& section);
// The same as text, for tests.
SDLTX_EXPORT std::string config_text_from_shapes(const ModelFiles& files, const std::string& section);

}  // namespace sdltx
