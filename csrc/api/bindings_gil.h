// Taking and giving back Python's lock. When Python ends while a daemon thread is in the core, it ends that thread
// where it asks for the lock, by unwinding it, which the core's destructors do not survive: here such a thread waits
// for the end of the process instead.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <optional>

#include "base/platform.h"

namespace sdltx {

inline bool python_ends() {
#if PY_VERSION_HEX >= 0x030D0000
    return !Py_IsInitialized() || Py_IsFinalizing();
#else
    return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

template <typename F>
void take_gil(F&& take) {
    // The thread that ends Python still has the lock, or gets it.
    const bool ends_it = ::getpid() == ::syscall(SYS_gettid);
    const auto wait_for_the_end = [] {
        Inside::never_again();
        for (;;) ::pause();
    };
    if (!ends_it && python_ends()) wait_for_the_end();
    try {
        take();
    } catch (abi::__forced_unwind&) {
        wait_for_the_end();  // leaving would go on unwinding
    }
}

// Holds the lock while it lives.
class WithGil {
 public:
    WithGil() {
        take_gil([&] { gil_.emplace(); });
    }

 private:
    std::optional<pybind11::gil_scoped_acquire> gil_;
};

// Gives the lock back while it lives.
class WithoutGil {
 public:
    WithoutGil() : thread_(PyEval_SaveThread()) {}
    ~WithoutGil() {
        take_gil([&] { PyEval_RestoreThread(thread_); });
    }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

 private:
    PyThreadState* thread_;
};

}  // namespace sdltx
