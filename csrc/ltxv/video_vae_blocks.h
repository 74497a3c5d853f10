// What the encoder and the decoder of the video VAE share (video_vae.md sections 2 to 4). Volumes are [C, W, H, F].
#pragma once

#include <array>
#include <string>

#include "ggml/conv3d.h"

namespace sdltx {

// In (time, height, width), of a "compress_..." block, also with "_res" behind.
std::array<int, 3> stride_of(const std::string& type);

// Rows of a 3x3x3 convolution of the VAE.
constexpr std::array<int, 3> vae_kernel = {3, 3, 3};

// silu of x / sqrt(mean over channels of x^2 + 1e-8).
ggml_tensor* pixel_norm_silu(Plan& g, ggml_tensor* x);

// x + conv2(norm_silu(conv1(norm_silu(x))))
struct VideoResBlock {
    Conv3d conv1, conv2;
};
ggml_tensor* res_block(Plan& g, const VideoResBlock& block, ggml_tensor* x, TimePadding time);

}  // namespace sdltx
