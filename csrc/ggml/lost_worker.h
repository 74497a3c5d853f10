// What becomes of calls to a worker that has gone away.
#pragma once

namespace sdltx {

// While one lives, calls of this thread to a worker that is gone do nothing; otherwise they throw Error(backend). For
// giving back what is held there.
class LossIsFine {
 public:
    LossIsFine();
    ~LossIsFine();
    LossIsFine(const LossIsFine&) = delete;
    LossIsFine& operator=(const LossIsFine&) = delete;
};

// Calls `free(object)`, of ggml, wherever the object lives.
template <typename T, typename Free>
void give_back(T object, Free free) noexcept {
    const LossIsFine fine;
    try {
        free(object);
    } catch (...) {
        // What cannot be given back stays.
    }
}

}  // namespace sdltx
