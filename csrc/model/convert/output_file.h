// A file that appears complete or not at all: written under a temporary name in the folder of its target.
#pragma once

#include <string>

namespace sdltx {

class OutputFile {
 public:
    // Links are written through. Throws Error(invalid_request) for what cannot be a file here.
    explicit OutputFile(const std::string& path);
    ~OutputFile();  // removes what was not committed
    OutputFile(const OutputFile&) = delete;
    OutputFile& operator=(const OutputFile&) = delete;

    // Whether it would replace this file.
    bool replaces(const std::string& path) const;
    // Where to write.
    const std::string& temporary() const { return temporary_; }
    // It becomes the target. Throws Error(backend).
    void commit();

 private:
    std::string given_, target_, temporary_;
};

}  // namespace sdltx
