// A row of independent pieces of work on several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace sdltx {

// Calls work(i) for every i in [0, count), in about that order, on the calling thread and up to threads - 1 more. The
// calling one calls between(done) before each of its own pieces. The first exception of any of them ends the rest and
// comes out when all threads have ended.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& work,
                  const std::function<void(int64_t)>& between);

}  // namespace sdltx
