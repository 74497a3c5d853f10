#include "video_vae_blocks.h"

namespace sdltx {

std::array<int, 3> stride_of(const std::string& type) {
    if (type.rfind("compress_time", 0) == 0) return {2, 1, 1};
    if (type.rfind("compress_space", 0) == 0) return {1, 2, 2};
    return {2, 2, 2};
}

ggml_tensor* pixel_norm_silu(Plan& g, ggml_tensor* x) {
    constexpr float eps = 1e-8f;
    return ggml_silu_inplace(g.ctx(), rms_norm(g, x, nullptr, eps));
}

ggml_tensor* res_block(Plan& g, const VideoResBlock& block, ggml_tensor* x, TimePadding time) {
    ggml_tensor* h = conv3d(g, block.conv1, pixel_norm_silu(g, x), time);
    return conv3d(g, block.conv2, pixel_norm_silu(g, h), time, x);
}

}  // namespace sdltx
