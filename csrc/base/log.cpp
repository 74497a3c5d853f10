#include "log.h"

#include <mutex>

namespace sdltx {

namespace {

struct Log {
    std::mutex mutex;
    LogCallback callback = nullptr;
    void* user = nullptr;
};

Log& log_state() {
    static auto& state = *new Log;  // never destroyed: threads may log until the process is gone
    return state;
}

}  // namespace

void set_log(LogCallback callback, void* user) {
    std::lock_guard<std::mutex> lock(log_state().mutex);
    log_state().callback = callback;
    log_state().user = user;
}

void log(int level, const std::string& text) {
    LogCallback callback;
    void* user;
    {
        std::lock_guard<std::mutex> lock(log_state().mutex);
        callback = log_state().callback;
        user = log_state().user;
    }
    if (callback) callback(level, text.c_str(), user);
}

}  // namespace sdltx
