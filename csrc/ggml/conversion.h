// What the stored bytes of a weight become on a device.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model_file.h"
#include "uploads.h"

namespace sdltx {

// Of tensors whose bytes are FP8: ggml has no type for them, and nothing else of ours that is a weight has this.
constexpr ggml_type fp8_type = GGML_TYPE_I8;

// One axis of a layout: how long it is, and how far apart its neighbours lie in another layout, in elements.
struct Axis {
    int64_t length, stride;
};

// How a weight lies in memory, if otherwise than in its file; at most one of these.
struct Layout {
    // Gets the stored values and writes the new ones.
    using Fill = std::function<void(const float* stored, float* laid_out)>;

    bool packed = false;      // as a type of ggml's that loses nothing; see encodings.h
    float plus = 0;           // is added to every element
    std::vector<Axis> order;  // elements change places
    Fill fill;                // something is computed of them

    bool as_stored() const { return !packed && plus == 0 && order.empty() && !fill; }
};

// Whether ggml can read the values where they are: it wants 16-bit halves and floats at even places, and a file may
// have them at any byte.
bool aligned(const TensorInfo& info);

// Writes a weight into its place, which has memory, on a device by way of `uploads`. Threads may call it at the same
// time.
void convert(const TensorInfo& info, const Layout& layout, ggml_tensor* to, Uploads& uploads);

// Its values for the host.
std::vector<float> floats_of(const TensorInfo& info);

}  // namespace sdltx
