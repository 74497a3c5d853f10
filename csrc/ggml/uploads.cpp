#include "uploads.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "devices.h"
#include "lost_worker.h"

namespace sdltx {

// A piece of such memory, waited for; null where it is not to be had.
class Uploads::Piece {
 public:
    Piece(Uploads& from, ggml_backend_buffer_type_t type) : from_(from) {
        std::unique_lock<std::mutex> lock(from_.mutex_);
        const auto usable = [&] {
            return from_.pieces_ == 0 ||
                   (from_.type_ == type && (!from_.spare_.empty() || from_.pieces_ < most_pieces));
        };
        // Another device's come back first.
        while (!usable()) {
            if (from_.type_ != type) from_.drop_spare();
            if (!usable()) from_.returned_.wait(lock);
        }
        from_.type_ = type;
        if (!from_.spare_.empty()) {
            buffer_ = from_.spare_.back();
            from_.spare_.pop_back();
        } else if ((buffer_ = ggml_backend_buft_alloc_buffer(type, piece_bytes))) {
            ++from_.pieces_;
        }
    }
    ~Piece() {
        if (!buffer_) return;
        const std::lock_guard<std::mutex> lock(from_.mutex_);
        from_.spare_.push_back(buffer_);
        from_.returned_.notify_all();
    }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;

    void* memory() const { return buffer_ ? ggml_backend_buffer_get_base(buffer_) : nullptr; }

 private:
    Uploads& from_;
    ggml_backend_buffer_t buffer_ = nullptr;
};

Uploads::~Uploads() { drop_spare(); }

void Uploads::drop_spare() {
    for (ggml_backend_buffer_t b : spare_) give_back(b, ggml_backend_buffer_free);
    pieces_ -= spare_.size();
    spare_.clear();
}

void Uploads::upload(ggml_tensor* to, const void* data) {
    constexpr size_t worth_it = size_t{1} << 20;
    const size_t bytes = ggml_nbytes(to);
    const auto send = [&](const void* from, size_t at, size_t count) {
        const std::lock_guard<std::mutex> lock(sending_);
        ggml_backend_tensor_set(to, from, at, count);
    };
    ggml_backend_dev_t device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(to->buffer));
    // The memory of an integrated GPU is that of the host.
    const bool own_memory = device && ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_IGPU;
    // Vulkan's is the first GPU's, which would be opened for it.
    const bool reads_it = own_memory && (!is_vulkan(device) || name_of(device) == "vulkan0");
    ggml_backend_buffer_type_t type = reads_it ? ggml_backend_dev_host_buffer_type(device) : nullptr;
    if (!type || bytes < worth_it) return send(data, 0, bytes);
    const auto* from = static_cast<const uint8_t*>(data);
    for (size_t at = 0; at < bytes; at += piece_bytes) {
        const size_t count = std::min(piece_bytes, bytes - at);
        const Piece piece(*this, type);
        if (piece.memory()) std::memcpy(piece.memory(), from + at, count);
        send(piece.memory() ? piece.memory() : from + at, at, count);
    }
}

}  // namespace sdltx
