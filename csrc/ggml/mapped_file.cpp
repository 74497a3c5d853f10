#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/platform.h"
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

std::string hint_for(const std::string& path) {
    if (path.empty()) return "; the path is empty";
    if (errno != ENOENT) return "; check the path";
    if (path.find('*') != std::string::npos) return "; no file fits this pattern";
    if (path.front() == '~') return "; the shell replaces ~ only where it is not quoted";
    const size_t slash = path.find('/');
    if (slash > 0 && slash != std::string::npos && path.find('/', slash + 1) == std::string::npos &&
        path.find(".safetensors") == std::string::npos && path.find(".gguf") == std::string::npos &&
        path.front() != '.')
        return "; if it is a name on Hugging Face, download its files first";
    return "; check the path";
}

struct Descriptor {
    int fd;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
    if (path.find('\0') != std::string::npos) fail(path.c_str(), "the path holds a NUL character");
    // A pipe would have us wait for somebody who writes into it.
    Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.fd < 0) fail(path, std::string("cannot open the file: ") + std::strerror(errno) + hint_for(path));
    struct stat st{};
    if (::fstat(file.fd, &st) != 0) fail(path, std::string("cannot read the file: ") + std::strerror(errno));
    if (!S_ISREG(st.st_mode)) fail(path, "is not a regular file; give a .safetensors or .gguf file");
    size_ = static_cast<size_t>(st.st_size);
    stamp_ = stamp_of(st);
    if (size_ == 0) fail(path, "the file is empty; download it again");
    void* p = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.fd, 0);
    if (p == MAP_FAILED) fail(path, std::string("cannot map the file: ") + std::strerror(errno));
    data_ = static_cast<const uint8_t*>(p);
    descriptor_ = std::exchange(file.fd, -1);
    guard_mapping(data_, size_, path_);
}

void check_mapped(const void* address) {
    if (const char* path = failed_mapping(address))
        fail(path, "was cut off or its disk failed while it was in use; restore the file and load the model again");
}

void check_mapped(const uint8_t* begin, size_t bytes) {
    constexpr size_t least_page = 4096;
    for (size_t at = 0; at < bytes; at += least_page)
        static_cast<void>(*static_cast<const volatile uint8_t*>(begin + at));
    if (bytes) static_cast<void>(*static_cast<const volatile uint8_t*>(begin + bytes - 1));
    check_mapped(begin);
}

MappedFile::~MappedFile() {
    if (!data_) return;
    release_mapping(data_);
    ::munmap(const_cast<uint8_t*>(data_), size_);
    ::close(descriptor_);
}

MappedFile::Stamp MappedFile::stamp_of(const struct stat& st) {
    return {st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
}

bool MappedFile::is_current() const {
    struct stat st{};
    if (::stat(path_.c_str(), &st) != 0) return false;
    const Stamp now = stamp_of(st);
    return now.device == stamp_.device && now.inode == stamp_.inode && now.size == stamp_.size &&
           now.seconds == stamp_.seconds && now.nanoseconds == stamp_.nanoseconds;
}

// MADV_POPULATE_READ, since Linux 5.14; some headers lack it.
constexpr int populate = 22;

// Whole pages inside the range when they are given up, all that the range touches when they are wanted.
void MappedFile::advise(const uint8_t* begin, size_t bytes, int advice) const {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    size_t from = static_cast<size_t>(begin - data_), to = from + bytes;
    if (advice == MADV_WILLNEED || advice == populate) {
        from = from / page * page;
    } else {
        from = (from + page - 1) / page * page;
        to = to / page * page;
    }
    // It is advice: when it is not taken, the work is the same, only slower.
    if (from < to) ::madvise(const_cast<uint8_t*>(data_) + from, to - from, advice);
}

// Of one request the system reads the first megabytes at most, so there are many.
void MappedFile::will_need(const uint8_t* begin, size_t bytes) const {
    constexpr size_t read_ahead = size_t{128} << 10;
    for (size_t at = 0; at < bytes; at += read_ahead)
        advise(begin + at, std::min(read_ahead, bytes - at), MADV_WILLNEED);
}

void MappedFile::read(const uint8_t* begin, size_t bytes, const std::atomic<bool>& stop) const {
    constexpr size_t piece = size_t{4} << 20;
    // The system reads ahead by itself here, in large pieces that cost it a tenth of what many small ones do.
    for (size_t at = 0; at < bytes && !stop; at += piece) advise(begin + at, std::min(piece, bytes - at), populate);
}

void MappedFile::drop(const uint8_t* begin, size_t bytes) const {
    advise(begin, bytes, MADV_DONTNEED);
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const auto from = (static_cast<size_t>(begin - data_) + page - 1) / page * page,
               to = (static_cast<size_t>(begin - data_) + bytes) / page * page;
    if (from < to)
        ::posix_fadvise(descriptor_, static_cast<off_t>(from), static_cast<off_t>(to - from), POSIX_FADV_DONTNEED);
}

double MappedFile::resident() const {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE)), pages = (size_ + page - 1) / page;
    std::vector<unsigned char> there(pages);
    if (::mincore(const_cast<uint8_t*>(data_), size_, there.data()) != 0) return 0;
    const auto count = std::count_if(there.begin(), there.end(), [](unsigned char c) { return c & 1; });
    return static_cast<double>(count) / static_cast<double>(pages);
}

double MappedFile::speed() const {
#ifdef O_DIRECT
    constexpr size_t piece = size_t{4} << 20, most_pieces = 8, alignment = 4096;
    constexpr auto patience = std::chrono::milliseconds(150);
    const Descriptor file{::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT)};
    if (file.fd < 0 || size_ < piece) return 0;
    const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(alignment, piece), &std::free);
    if (!buffer) return 0;
    size_t bytes = 0;
    const auto start = std::chrono::steady_clock::now();
    std::chrono::duration<double> taken{0};
    for (size_t i = 0; i < most_pieces && taken < patience; ++i) {
        const size_t at = (size_ - piece) / most_pieces * i / alignment * alignment;
        const ssize_t n = ::pread(file.fd, buffer.get(), piece, static_cast<off_t>(at));
        if (n <= 0) return 0;
        bytes += static_cast<size_t>(n);
        taken = std::chrono::steady_clock::now() - start;
    }
    return static_cast<double>(bytes) / taken.count();
#else
    return 0;
#endif
}

// The pages leave this process; the file cache keeps them until it needs room, and then gives them up first.
void MappedFile::forget(const uint8_t* begin, size_t bytes) const {
#ifdef MADV_COLD
    advise(begin, bytes, MADV_COLD);
#endif
    advise(begin, bytes, MADV_DONTNEED);
}

}  // namespace sdltx
