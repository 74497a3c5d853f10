// Model files to one model file of other types or another layout.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/export.h"
#include "base/types.h"
#include "ggml/model_file.h"
#include "imatrix.h"
#include "model_writer.h"
#include "quantisation.h"

namespace sdltx {

// What a file of its own is made of: "transformer" (with the connectors), "text_projection", "video_vae", "audio_vae"
// (with the vocoder).
SDLTX_EXPORT std::vector<std::string> file_part_names();

struct ConvertOptions {
    FileFormat format = FileFormat::gguf;
    std::string type = "q8_0";       // of mix_names(); applies to the transformer, the rest stays as stored
    std::vector<TypeRule> rules;     // for single tensors, before the table of quantisation.cpp
    std::vector<std::string> parts;  // of file_part_names(); empty: all that the files hold
    std::string imatrix;             // path; empty: none
    int threads = 0;                 // 0 = one per core
};

class SDLTX_EXPORT Conversion {
 public:
    // Opens the files, checks that they make up what they claim to be, and decides what is written. Throws
    // Error(model_file | model_mismatch | invalid_request).
    Conversion(const std::vector<std::string>& paths, const ConvertOptions& options);
    ~Conversion();

    // Parts of file_part_names() that are written.
    const std::vector<std::string>& parts() const { return parts_; }
    // Of the file to come.
    uint64_t bytes() const { return writer_->bytes(); }
    // Names of its tensors and their types.
    std::vector<std::pair<std::string, std::string>> types() const;
    // Paths of the files that are read.
    std::vector<std::string> files() const;

    // Writes the file. Progress counts pieces of work, as "convert". Memory does not depend on the size of the model.
    // Throws Error(backend) for a disk that is full or fails, Error(model_file) for values that are not finite,
    // Error(cancelled); what is written so far stays, so write to a temporary name.
    void write(const std::string& path, const Progress& progress);

 private:
    struct Piece {
        size_t tensor;
        int64_t first, count;  // elements
    };
    void convert(const Piece& piece);

    ModelFiles files_;
    std::vector<std::string> parts_;
    std::vector<const TensorInfo*> sources_;
    std::vector<WrittenTensor> written_;
    std::vector<const std::vector<float>*> importance_;  // of each tensor, or null
    Imatrix imatrix_;
    std::unique_ptr<ModelWriter> writer_;
    int threads_;
};

}  // namespace sdltx
