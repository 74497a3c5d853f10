// Convolution over channels-last volumes [C, W, H, F], stride 1, in one of three ways.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "linear.h"
#include "ops.h"

namespace sdltx {

// own: by our CPU kernel, which multiplies the pixels under a kernel where they lie. Where it cannot, windows.
// windows: channels last make the kw pixels under a kernel row one contiguous run, so a convolution is kt*kh matrix
// products over overlapping runs, added up where they belong. On the CPU, whose product reads the runs where they lie,
// it is about twice as fast as columns; the kernel is packed for it.
// columns: the pixels under a whole kernel are written side by side (im2col), in slices, and multiplied by the kernel
// as it is stored. Plain operations that every device has.
enum class ConvLowering { own, windows, columns };

enum class SpacePadding { zeros, reflect };  // reflect: mirrored at the outermost pixel, which is not repeated

struct Conv3d {
    ConvLowering lowering{};
    SpacePadding space{};
    ggml_tensor* w = nullptr;     // own, windows: [kw*in, out, kh, kt]; columns: [kw*kh*kt*in, out]. F32 or BF16: half
                                  // precision overflows in a VAE
    ggml_tensor* b = nullptr;     // [out], may be null
    std::array<int, 3> kernel{};  // kt, kh, kw; odd
};
enum class TimePadding {
    causal,        // kt-1 copies of the first frame before
    replicate,     // (kt-1)/2 copies of each end frame
    causal_zeros,  // kt-1 frames of zeros before
    zeros,         // (kt-1)/2 frames of zeros at each end
};
struct ConvOptions {
    std::vector<Axis> out_axes = {};  // the axes of the stored output channels in the order, slowest first, in which
                                      // they are wanted; empty = unchanged
    bool exact = false;               // kernel and arithmetic in float32 whatever is stored
    bool bias = true;
    std::optional<ConvLowering> lowering = std::nullopt;  // own where the host computes, columns elsewhere
    SpacePadding space = SpacePadding::zeros;
};
Conv3d declare_conv3d(Weights& weights, const std::string& name, int64_t in, int64_t out, std::array<int, 3> kernel,
                      const ConvOptions& options = {});
// Zeros or mirrored pixels around each frame, frames repeated or zeros in time; `residual`, unless null, is added to
// the result. Works in pieces of about `piece_bytes`, at least a frame (own), a row (windows) or a pixel (columns); 0 =
// the default: 64 MiB (own), small enough for a processor's cache (windows, unless that made too many pieces), or 256
// MiB (columns).
ggml_tensor* conv3d(Plan& g, const Conv3d& c, ggml_tensor* x, TimePadding time, ggml_tensor* residual = nullptr,
                    int64_t piece_bytes = 0);
// The same of a kernel (1, 1, kw) for a row [C, W], whose taps are `dilation` pixels apart; only where can_dilate().
ggml_tensor* dilated_conv1d(Plan& g, const Conv3d& c, ggml_tensor* x, int64_t dilation, ggml_tensor* residual);
bool can_dilate(const Plan& g, const Conv3d& c, const ggml_tensor* x, const ggml_tensor* residual);

// Runs of kw pixels of a packed volume [C, W, H, F], one starting at every pixel from byte `at` on: [kw*C, pixels,
// frames]. The runs overlap; they must end where the volume ends.
ggml_tensor* window_view(Plan& g, ggml_tensor* x, int64_t kw, int64_t pixels, int64_t frames, size_t at);

}  // namespace sdltx
