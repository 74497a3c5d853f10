// Bytes on their way to a device.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "ggml-backend.h"

namespace sdltx {

// By way of memory that the device fetches from by itself, in pieces, where its driver has such memory: some threads
// fill pieces while another's is on its way. Elsewhere straight from where they are.
class Uploads {
 public:
    Uploads() = default;
    ~Uploads();
    Uploads(const Uploads&) = delete;
    Uploads& operator=(const Uploads&) = delete;

    // All of `to`, which has memory on a device. Threads may call it at the same time.
    void upload(ggml_tensor* to, const void* data);

 private:
    class Piece;
    void drop_spare();

    static constexpr size_t piece_bytes = size_t{16} << 20;
    static constexpr size_t most_pieces = 4;

    std::mutex sending_;  // devices are not asked to take several at once
    std::mutex mutex_;    // of the rest
    std::condition_variable returned_;
    ggml_backend_buffer_type_t type_ = nullptr;   // of the device that was served last
    std::vector<ggml_backend_buffer_t> spare_{};  // of this type
    size_t pieces_ = 0;                           // that there are, spare or not
};

}  // namespace sdltx
