#include "platform.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

namespace sdltx {

namespace {

std::optional<std::string> first_line(const std::string& path) {
    std::ifstream in(path);
    std::string line;
    if (!std::getline(in, line)) return std::nullopt;
    return line;
}

std::optional<int64_t> number_in(const std::string& path) {
    const auto line = first_line(path);
    char* end = nullptr;
    const int64_t n = line ? std::strtoll(line->c_str(), &end, 10) : 0;
    if (!line || end == line->c_str()) return std::nullopt;  // "max" is not a number
    return n;
}

// Calls `visit` with the folder of this process's cgroup and those above it: of version 2, and of version 1's
// `controller`.
template <typename Visit>
void each_cgroup(const std::string& controller, Visit visit) {
    std::ifstream in("/proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {
        const size_t a = line.find(':'), b = line.find(':', a + 1);
        if (a == std::string::npos || b == std::string::npos) continue;
        const std::string controllers = "," + line.substr(a + 1, b - a - 1) + ",";
        const bool unified = controllers == ",,";
        if (!unified && controllers.find("," + controller + ",") == std::string::npos) continue;
        const std::string root = unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
        for (std::string path = line.substr(b + 1);; path.resize(path.find_last_of('/'))) {
            visit(root + path, unified);
            if (path.find_last_of('/') == std::string::npos) break;
        }
    }
}

// Processors' worth of time that the cgroup grants, or nothing when it sets no limit.
std::optional<double> cgroup_processors() {
    std::optional<double> least;
    each_cgroup("cpu", [&](const std::string& folder, bool unified) {
        double quota = 0, period = 0;
        if (unified) {
            std::istringstream line(first_line(folder + "/cpu.max").value_or("max"));
            if (!(line >> quota >> period)) return;
        } else {
            quota = static_cast<double>(number_in(folder + "/cpu.cfs_quota_us").value_or(-1));
            period = static_cast<double>(number_in(folder + "/cpu.cfs_period_us").value_or(0));
        }
        if (quota > 0 && period > 0) least = std::min(least.value_or(quota / period), quota / period);
    });
    return least;
}

// Bytes left below the cgroup's memory limit; what its file cache holds can be given back.
std::optional<size_t> cgroup_memory() {
    std::optional<size_t> least;
    each_cgroup("memory", [&](const std::string& folder, bool unified) {
        const auto limit = number_in(folder + (unified ? "/memory.max" : "/memory.limit_in_bytes"));
        const auto used = number_in(folder + (unified ? "/memory.current" : "/memory.usage_in_bytes"));
        if (!limit || !used || *limit > INT64_MAX / 2) return;
        int64_t cache = 0;
        std::ifstream stat(folder + "/memory.stat");
        std::string key;
        for (int64_t value; stat >> key >> value;)
            if (key == "inactive_file" || key == "active_file") cache += value;
        const auto left = static_cast<size_t>(std::max<int64_t>(0, *limit - *used + std::min(cache, *used)));
        least = std::min(least.value_or(left), left);
    });
    return least;
}

// --- last words ---

constexpr size_t max_guarded = 256;

// Fixed tables: they are read by signal handlers, where nothing may be allocated or locked.
struct GuardedFile {
    std::atomic<bool> used{false};
    char path[PATH_MAX];
};
struct GuardedMapping {
    std::atomic<uintptr_t> begin{0};
    uintptr_t end;
    std::atomic<bool> failed{false};
    char path[PATH_MAX];
};
GuardedFile guarded_files[max_guarded];
GuardedMapping guarded_mappings[max_guarded];
std::mutex tables;  // of writers
struct sigaction previous_bus_action;

void say(const char* text) {
    for (size_t left = std::strlen(text); left > 0;) {
        const ssize_t n = ::write(STDERR_FILENO, text, left);
        if (n <= 0) return;
        text += n;
        left -= static_cast<size_t>(n);
    }
}

// As opendir() allocates, which a signal handler must not, the kernel's own call reads the folder.
void remove_folder(const char* path) {
    struct Entry {
        uint64_t inode, offset;
        unsigned short length;
        unsigned char type;
        char name[1];
    };
    const int folder = ::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return;
    alignas(Entry) char buffer[4096];
    for (long n; (n = ::syscall(SYS_getdents64, folder, buffer, sizeof(buffer))) > 0;)
        for (long at = 0; at < n; at += reinterpret_cast<const Entry*>(buffer + at)->length)
            ::unlinkat(folder, reinterpret_cast<const Entry*>(buffer + at)->name, 0);
    ::close(folder);
    ::rmdir(path);
}

[[noreturn]] void on_terminate() {
    if (const std::exception_ptr error = std::current_exception()) {
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& e) {
            last_words(e.what());
        } catch (...) {
            last_words("an exception of unknown type was not caught");
        }
    } else {
        last_words("terminated without an exception");
    }
    std::abort();
}

std::atomic<bool> any_failed{false};  // of the mappings, ever
const auto page_size = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));

// From the page of `address` on, zeros take the place of what cannot be read.
bool read_as_zeros(uintptr_t address, uintptr_t end) {
    const uintptr_t from = address / page_size * page_size, to = (end + page_size - 1) / page_size * page_size;
    return ::mmap(reinterpret_cast<void*>(from), to - from, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                  0) != MAP_FAILED;
}

void on_bus_error(int, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    for (auto& m : guarded_mappings) {
        const uintptr_t begin = m.begin.load();
        if (begin == 0 || address < begin || address >= m.end) continue;
        m.failed = true;
        any_failed = true;
        const int before = errno;
        const bool goes_on = read_as_zeros(address, m.end);
        errno = before;
        if (goes_on) return;
        say("sdltx: error: ");
        say(m.path);
        say(" was cut off or its disk failed while it was in use; do not replace or change a model while it runs\n");
        remove_guarded_files();
    }
    // The access is tried again, and whoever was here before decides; by default the process ends.
    ::sigaction(SIGBUS, &previous_bus_action, nullptr);
}

void copy_path(char* to, const std::string& path) {
    const size_t n = std::min<size_t>(path.size(), PATH_MAX - 1);
    std::memcpy(to, path.data(), n);
    to[n] = '\0';
}

std::atomic<bool> forked{false};

constexpr int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
struct sigaction previous_ending_actions[std::size(ending_signals)];
std::atomic<bool> signalled{false};

void on_ending_signal(int number, siginfo_t* info, void* context) {
    if (signalled.exchange(true)) {
        remove_guarded_files();
        say("\nstopped at once\n");
        ::_exit(128 + number);
    }
    for (size_t i = 0; i < std::size(ending_signals); ++i) {
        const struct sigaction& before = previous_ending_actions[i];
        if (ending_signals[i] != number) continue;
        if (before.sa_flags & SA_SIGINFO)
            before.sa_sigaction(number, info, context);
        else if (before.sa_handler != SIG_DFL)
            before.sa_handler(number);
    }
}

}  // namespace

int usable_processors() {
    constexpr int most_processors = 1 << 16;
    constexpr size_t bytes = CPU_ALLOC_SIZE(most_processors);
    std::vector<cpu_set_t> mask(bytes / sizeof(cpu_set_t));
    std::set<std::string> cores;
    int logical = 0;
    if (::sched_getaffinity(0, bytes, mask.data()) == 0)
        for (int cpu = 0; cpu < most_processors; ++cpu) {
            if (!CPU_ISSET_S(cpu, bytes, mask.data())) continue;
            ++logical;
            const auto siblings =
                first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
            cores.insert(siblings.value_or(std::to_string(cpu)));
        }
    int n = logical ? static_cast<int>(cores.size()) : 1;
    if (const auto quota = cgroup_processors()) n = std::min(n, static_cast<int>(*quota + 0.5));
    return std::max(n, 1);
}

size_t available_memory() {
    size_t least = SIZE_MAX;
    std::ifstream in("/proc/meminfo");
    for (std::string line; std::getline(in, line);)
        if (line.rfind("MemAvailable:", 0) == 0)
            least = static_cast<size_t>(std::strtoull(line.c_str() + 13, nullptr, 10)) << 10;
    if (const auto left = cgroup_memory()) least = std::min(least, *left);
    rlimit limit{};
    if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        const auto pages = static_cast<size_t>(number_in("/proc/self/statm").value_or(0));
        const size_t used = pages * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
        least = std::min(least, static_cast<size_t>(limit.rlim_cur) - std::min<size_t>(used, limit.rlim_cur));
    }
    return least;
}

size_t own_memory() {
    std::ifstream in("/proc/self/status");
    for (std::string line; std::getline(in, line);)
        if (line.rfind("RssAnon:", 0) == 0)
            return static_cast<size_t>(std::strtoull(line.c_str() + 8, nullptr, 10)) << 10;
    return 0;
}

void last_words(const char* message) {
    say("sdltx: internal error, please report this line and how to get it: ");
    say(message);
    say("\n");
    remove_guarded_files();
}

void install_last_words() {
    static std::once_flag once;
    std::call_once(once, [] {
        std::set_terminate(on_terminate);
        struct sigaction action{};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        ::sigaction(SIGBUS, &action, &previous_bus_action);
    });
}

void end_on_second_signal() {
    static std::once_flag once;  // the second time it would be its own predecessor
    std::call_once(once, [] {
        for (size_t i = 0; i < std::size(ending_signals); ++i) {
            struct sigaction action{};
            ::sigaction(ending_signals[i], nullptr, &previous_ending_actions[i]);
            // What nobody handles ends the process already, and what is ignored is meant to be.
            const auto before = previous_ending_actions[i].sa_handler;
            if (before == SIG_DFL || before == SIG_IGN) continue;
            action.sa_sigaction = on_ending_signal;
            action.sa_flags = SA_SIGINFO | SA_ONSTACK;
            ::sigaction(ending_signals[i], &action, nullptr);
        }
    });
}

namespace {

std::mutex restarting;
int restarters = 0;
std::vector<int> restarted_signals;

}  // namespace

WholeSystemCalls::WholeSystemCalls() {
    const std::lock_guard<std::mutex> lock(restarting);
    if (restarters++ > 0) return;
    for (int number = 1; number < NSIG; ++number) {
        struct sigaction action{};
        if (::sigaction(number, nullptr, &action) != 0 || action.sa_flags & SA_RESTART) continue;
        if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
        action.sa_flags |= SA_RESTART;
        if (::sigaction(number, &action, nullptr) == 0) restarted_signals.push_back(number);
    }
}

WholeSystemCalls::~WholeSystemCalls() {
    const std::lock_guard<std::mutex> lock(restarting);
    if (--restarters > 0) return;
    for (int number : restarted_signals) {
        struct sigaction action{};
        if (::sigaction(number, nullptr, &action) != 0) continue;
        action.sa_flags &= ~SA_RESTART;
        ::sigaction(number, &action, nullptr);
    }
    restarted_signals.clear();
}

void remove_guarded_files() {
    for (auto& file : guarded_files)
        if (file.used.load() && ::unlink(file.path) != 0) remove_folder(file.path);
}

void guard_file(const std::string& path) {
    std::lock_guard<std::mutex> lock(tables);
    for (auto& file : guarded_files)
        if (!file.used.load()) {
            copy_path(file.path, path);
            file.used = true;
            return;
        }
}

void release_file(const std::string& path) {
    std::lock_guard<std::mutex> lock(tables);
    for (auto& file : guarded_files)
        if (file.used.load() && path == file.path) file.used = false;
}

void guard_mapping(const void* begin, size_t size, const std::string& path) {
    std::lock_guard<std::mutex> lock(tables);
    for (auto& m : guarded_mappings)
        if (m.begin.load() == 0) {
            copy_path(m.path, path);
            m.end = reinterpret_cast<uintptr_t>(begin) + size;
            m.failed = false;
            m.begin = reinterpret_cast<uintptr_t>(begin);
            return;
        }
}

void release_mapping(const void* begin) {
    std::lock_guard<std::mutex> lock(tables);
    for (auto& m : guarded_mappings)
        if (m.begin.load() == reinterpret_cast<uintptr_t>(begin)) m.begin = 0;
}

const char* failed_mapping(const void* address) {
    if (!any_failed) return nullptr;
    const auto wanted = reinterpret_cast<uintptr_t>(address);
    for (auto& m : guarded_mappings) {
        const uintptr_t begin = m.begin.load();
        if (begin != 0 && wanted >= begin && wanted < m.end && m.failed) return m.path;
    }
    return nullptr;
}

namespace {

std::atomic<int> threads_inside{0};
std::atomic<bool> ending{false};
thread_local int depth_inside = 0;

}  // namespace

Inside::Inside() {
    if (depth_inside++ == 0) ++threads_inside;
}

Inside::~Inside() {
    if (--depth_inside == 0) --threads_inside;
}

bool Inside::this_thread() { return depth_inside > 0; }

void Inside::never_again() {
    if (depth_inside > 0) --threads_inside;
    depth_inside = 0;
}

bool process_ends() { return ending; }

void wait_for_threads_at_exit() {
    static std::once_flag once;
    std::call_once(once, [] {
        std::atexit([] {
            ending = true;
            const int own = depth_inside > 0 ? 1 : 0;
            for (int i = 0; i < 200 && threads_inside > own; ++i) ::usleep(10'000);
        });
    });
}

bool forked_without_threads() { return forked; }
void note_threads_used() {
    static std::once_flag once;
    std::call_once(once, [] { ::pthread_atfork(nullptr, nullptr, [] { forked = true; }); });
}

}  // namespace sdltx
