#include "state.h"

namespace sdltx {

// As input: where a device cannot compute something itself, its value is copied at once.
ggml_tensor* State::tensor(const std::string& name, ggml_type type, std::initializer_list<int64_t> ne) {
    ggml_tensor* t = ggml_new_tensor(arena_.context(), type, static_cast<int>(ne.size()), ne.begin());
    ggml_set_name(t, name.c_str());
    ggml_set_input(t);
    // As Backend::allocate() counts.
    const size_t unit = ggml_backend_buft_get_alignment(backend_.buffer_type(device_));
    size_ += GGML_PAD(ggml_nbytes(t), unit) + (without_memory_.empty() ? unit : 0);
    without_memory_.push_back(t);
    return t;
}

void State::allocate() {
    if (without_memory_.empty()) return;
    for (auto& b : backend_.allocate(without_memory_, Backend::Use::state, device_, what_)) {
        ggml_backend_buffer_clear(b.get(), 0);
        buffers_.push_back(std::move(b));
    }
    without_memory_.clear();
}

void State::set(ggml_tensor* t, const void* data, size_t bytes) {
    allocate();
    if (bytes != ggml_nbytes(t))
        throw Error(ErrorCode::invalid_request, "[" + what_ + "] '" + ggml_get_name(t) + "' takes " +
                                                    std::to_string(ggml_nbytes(t)) + " bytes, got " +
                                                    std::to_string(bytes));
    ggml_backend_tensor_set(t, data, 0, bytes);
}

}  // namespace sdltx
