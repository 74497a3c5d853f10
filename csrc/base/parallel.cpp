#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sdltx {

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& work,
                  const std::function<void(int64_t)>& between) {
    std::atomic<int64_t> next{0}, done{0};
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::exception_ptr failure;
    const auto run = [&](bool calling) {
        try {
            for (int64_t i; !stop && (i = next++) < count; ++done) {
                if (calling) between(done);
                work(i);
            }
        } catch (...) {
            stop = true;
            std::lock_guard<std::mutex> lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    helpers.reserve(static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(threads, count) - 1)));
    try {
        for (int64_t i = 1; i < std::min<int64_t>(threads, count); ++i) helpers.emplace_back(run, false);
    } catch (const std::exception&) {
        // Those that there are do all of the work.
    }
    run(true);
    for (auto& h : helpers) h.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace sdltx
