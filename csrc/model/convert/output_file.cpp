#include "output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>

#include "base/error.h"
#include "base/platform.h"

namespace fs = std::filesystem;

namespace sdltx {

namespace {

constexpr int max_links = 40;  // as many as the system follows

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::invalid_request, "[output] " + what); }

std::string random_name() {
    char name[32];
    std::snprintf(name, sizeof(name), ".sdltx-%08x.tmp", static_cast<unsigned>(std::random_device()()));
    return name;
}

}  // namespace

OutputFile::OutputFile(const std::string& path) : given_(path) {
    if (path.empty() || path.find('\0') != std::string::npos) refuse("the name is empty or holds a NUL character");
    std::error_code error;
    fs::path target = fs::absolute(path, error);
    int links = 0;
    for (; !error && fs::is_symlink(target, error) && links < max_links; ++links)
        target = target.parent_path() / fs::read_symlink(target, error);
    if (links == max_links) refuse(path + " is a link that leads to itself; remove it or choose another name");
    target_ = target.string();
    struct stat st{};
    if (::stat(target_.c_str(), &st) == 0) {
        if (S_ISDIR(st.st_mode)) refuse(path + " is a folder; add a file name");
        if (!S_ISREG(st.st_mode)) refuse(path + " is no regular file; choose another name");
        // Also for root, who is not stopped by it but meant it.
        if (!(st.st_mode & 0222)) refuse(path + " is write-protected; make it writable or choose another name");
    } else if (errno != ENOENT) {
        refuse("cannot write to " + path + ": " + std::strerror(errno) + "; choose another name");
    }
    temporary_ = (target.parent_path() / random_name()).string();
    guard_file(temporary_);
    const int fd = ::open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd < 0) {
        const int reason = errno;
        release_file(temporary_);
        refuse("cannot write to the folder of " + path + ": " + std::strerror(reason) + "; choose another");
    }
    ::close(fd);
}

OutputFile::~OutputFile() {
    ::unlink(temporary_.c_str());
    release_file(temporary_);
}

bool OutputFile::replaces(const std::string& path) const {
    std::error_code error;
    return fs::equivalent(target_, path, error) && !error;
}

void OutputFile::commit() {
    if (std::rename(temporary_.c_str(), target_.c_str()) != 0)
        throw Error(ErrorCode::backend, "[output] cannot write " + given_ + ": " + std::strerror(errno));
}

}  // namespace sdltx
