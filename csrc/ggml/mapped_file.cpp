#include <cerrno>
#include <cstring>

#include "model_file.h"

#ifdef _WIN32
#error "memory mapping is written for POSIX systems"
#endif
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sdltx {

namespace {

[[noreturn]] void fail(const std::string& path, const std::string& why) {
    throw Error(ErrorCode::model_file, "[" + path + "] " + why);
}

struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
    Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) fail(path, std::string("cannot open the file: ") + std::strerror(errno) + "; check the path");
    struct stat st{};
    if (::fstat(file.fd, &st) != 0) fail(path, std::string("cannot read the file: ") + std::strerror(errno));
    if (!S_ISREG(st.st_mode))
        fail(path, "is not a regular file; give a .safetensors or .gguf file, or a folder of them");
    size_ = static_cast<size_t>(st.st_size);
    if (size_ == 0) fail(path, "the file is empty; download it again");
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
    if (p == MAP_FAILED) fail(path, std::string("cannot map the file: ") + std::strerror(errno));
    data_ = static_cast<const uint8_t*>(p);
}

MappedFile::~MappedFile() {
    if (data_) ::munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace sdltx
