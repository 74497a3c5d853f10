// What the operating system knows: processors, free memory, and the last words of a process that has to end. Linux.
#pragma once

#include <cstddef>
#include <string>

#include "export.h"

namespace sdltx {

// Physical cores that this process may use: within its affinity mask and its cgroup's quota; at least 1.
SDLTX_EXPORT int usable_processors();

// Bytes that can be allocated without swapping: what the machine has left, or the cgroup or address space limit where
// that is less. SIZE_MAX when nothing tells.
size_t available_memory();

// Bytes of memory of its own that this process has, its mapped files not counted.
size_t own_memory();

// Says in one line on stderr that `message`, a bug, ends the process, and removes guarded files. For ggml's abort
// callback.
void last_words(const char* message);
// The same for uncaught exceptions. And model files that are cut off while they are in use (SIGBUS) no longer end the
// process: what is gone reads as zeros, and failed_mapping() tells. Other such signals go to who handled them before.
// It is the choice of programs, as it sets handlers of the process, once.
SDLTX_EXPORT void install_last_words();

// From now on a second INT, TERM or HUP signal ends the process at once, with status 128 + its number; the first goes
// where it went before. For programs, not for libraries: whatever the first one waits for, such as a disk that does not
// answer.
SDLTX_EXPORT void end_on_second_signal();

// While one lives, signals that somebody handles do not cut system calls short: a connection to a worker would count as
// broken. What they set off happens all the same.
class WholeSystemCalls {
 public:
    WholeSystemCalls();
    ~WholeSystemCalls();
    WholeSystemCalls(const WholeSystemCalls&) = delete;
    WholeSystemCalls& operator=(const WholeSystemCalls&) = delete;
};

// Files, or folders of files, that are not finished yet: removed when the process ends by an assertion or a second
// signal.
SDLTX_EXPORT void guard_file(const std::string& path);
SDLTX_EXPORT void release_file(const std::string& path);
// Removes them now: for the end of a program that a signal has interrupted anywhere.
SDLTX_EXPORT void remove_guarded_files();

// Memory [begin, begin + size) mapped from a file that is expected to stay as it is. When it is truncated under our
// hands the kernel ends the process (SIGBUS), unless install_last_words() was called.
void guard_mapping(const void* begin, size_t size, const std::string& path);
void release_mapping(const void* begin);
// The path of the mapping around an address if a part of it could not be read and was zeros; nullptr otherwise.
const char* failed_mapping(const void* address);

// A thread is in this library while one lives. The end of the process waits for it, two seconds at most, before it
// takes apart what the thread uses; see process_ends().
class SDLTX_EXPORT Inside {
 public:
    Inside();
    ~Inside();
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

    // This thread, inside or not, will do nothing more: it only waits for the end of the process.
    static void never_again();
    // Whether one lives on this thread.
    static bool this_thread();
};
// Whether the process is ending: what takes long should stop.
bool process_ends();
// From now on the end of the process waits for threads that are inside. To be called when what they use is there, as
// later things go earlier.
void wait_for_threads_at_exit();

// Set in a child that was forked after this process had computed with several threads: OpenMP's threads are not copied,
// and waiting for them would never end.
bool forked_without_threads();
void note_threads_used();

}  // namespace sdltx
