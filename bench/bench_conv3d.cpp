// The VAE's 3x3x3 convolution: ours (products over gathered window rows, channels last) against ggml's im2col_3d path,
// run alternately on the same values (there with a half-precision kernel, as it has no BF16). Usage: bench_conv3d
// [channels=128] [frames=9] [height=64] [width=64] [pairs=5] [MiB of a piece=0: the default]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "ggml/ops.h"
#include "ggml/workspace.h"

using namespace sdltx;

namespace {

std::vector<float> random_values(size_t n, float scale) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> v(n);
    for (float& x : v) x = normal(rng);
    return v;
}

// A model file with one convolution in BF16, as the release has it.
std::string write_kernel(const std::vector<float>& w, int64_t c) {
    const std::string path = (std::filesystem::temp_directory_path() / "sdltx_bench_conv3d.safetensors").string();
    const size_t wn = w.size() * 2, bn = static_cast<size_t>(c) * 4;
    const nlohmann::json header = {
        {"c.weight", {{"dtype", "BF16"}, {"shape", {c, c, 3, 3, 3}}, {"data_offsets", {0, wn}}}},
        {"c.bias", {{"dtype", "F32"}, {"shape", {c}}, {"data_offsets", {wn, wn + bn}}}}};
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::vector<ggml_bf16_t> half(w.size());
    ggml_fp32_to_bf16_row(w.data(), half.data(), static_cast<int64_t>(w.size()));
    const std::vector<float> bias(static_cast<size_t>(c), 0.0f);
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8).write(text.data(), static_cast<std::streamsize>(length));
    out.write(reinterpret_cast<const char*>(half.data()), static_cast<std::streamsize>(wn));
    out.write(reinterpret_cast<const char*>(bias.data()), static_cast<std::streamsize>(bn));
    return path;
}

double seconds(Workspace& workspace, Plan& g) {
    const auto start = std::chrono::steady_clock::now();
    workspace.run(g);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double mib(Workspace& workspace, Plan& g) {
    const std::vector<size_t> working = workspace.measure(g);
    return static_cast<double>(std::accumulate(working.begin(), working.end(), g.inputs().size())) / (1 << 20);
}

double median(std::vector<double> v) {
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
    auto arg = [&](int i, int64_t fallback) { return argc > i ? std::atoll(argv[i]) : fallback; };
    const int64_t c = arg(1, 128), frames = arg(2, 9), height = arg(3, 64), width = arg(4, 64), pairs = arg(5, 5),
                  piece = arg(6, 0) << 20;
    const auto kernel = random_values(static_cast<size_t>(c * c * 27), 0.02f);
    const auto planar = random_values(static_cast<size_t>(c * frames * height * width), 1.0f);
    const std::string path = write_kernel(kernel, c);
    const ModelFiles files({path});
    const Backend backend("cpu", false, 0);

    Weights weights(files, backend, "bench", "");
    const Conv3d conv = declare_conv3d(weights, "c", c, c, {3, 3, 3});
    weights.acquire({});
    Workspace our_workspace(backend), peer_workspace(backend);  // both results are read at the end
    Plan ours(backend, "ours", nullptr);
    ggml_tensor* x = ours.input("x", GGML_TYPE_F32, {c, width, height, frames});
    ggml_tensor* y = ours.output(conv3d(ours, conv, x, TimePadding::replicate, nullptr, piece), "y");
    std::vector<float> last(planar.size());
    const int64_t voxels = frames * height * width;
    for (int64_t i = 0; i < c; ++i)
        for (int64_t v = 0; v < voxels; ++v)
            last[static_cast<size_t>(v * c + i)] = planar[static_cast<size_t>(i * voxels + v)];
    ours.set(x, last);

    // The peer pads time with zeros, so only frames away from the ends are compared.
    Plan peer(backend, "im2col_3d", nullptr);
    ggml_tensor* px = peer.input("x", GGML_TYPE_F32, {width, height, frames, c});
    ggml_tensor* pw = peer.input("w", GGML_TYPE_F16, {3, 3, 3, c * c});
    ggml_tensor* py = peer.output(ggml_conv_3d(peer.ctx(), pw, px, c, 1, 1, 1, 1, 1, 1, 1, 1, 1), "y");
    peer.set(px, planar);
    std::vector<ggml_fp16_t> half(kernel.size());
    ggml_fp32_to_fp16_row(kernel.data(), half.data(), static_cast<int64_t>(kernel.size()));
    peer.set(pw, half.data(), half.size() * sizeof(half[0]));

    std::vector<double> a, b;
    for (int64_t i = 0; i <= pairs; ++i) {
        const double ta = seconds(our_workspace, ours), tb = seconds(peer_workspace, peer);
        if (i == 0) continue;  // warm-up
        a.push_back(ta);
        b.push_back(tb);
    }
    const auto mine = ours.get(y), theirs = peer.get(py);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < c; ++i)
        for (int64_t v = height * width; v < voxels - height * width; ++v) {
            const double m = mine[static_cast<size_t>(v * c + i)], t = theirs[static_cast<size_t>(i * voxels + v)];
            error += (m - t) * (m - t);
            norm += t * t;
        }
    const double flop = 2.0 * 27 * static_cast<double>(c * c * voxels);
    std::printf("conv3d 3x3x3, %lld channels, %lldx%lldx%lld, %d threads, medians of %zu pairs\n", (long long)c,
                (long long)frames, (long long)height, (long long)width, backend.threads(), a.size());
    std::printf("  sdltx      %8.1f ms  %7.1f GFLOP/s  %6.1f MiB of working memory\n", median(a) * 1e3,
                flop / median(a) / 1e9, mib(our_workspace, ours));
    std::printf("  im2col_3d  %8.1f ms  %7.1f GFLOP/s  %6.1f MiB\n", median(b) * 1e3, flop / median(b) / 1e9,
                mib(peer_workspace, peer));
    std::printf("  ratio %.2f, results differ by %.1e relative RMS\n", median(b) / median(a), std::sqrt(error / norm));
    std::filesystem::remove(path);
    return std::sqrt(error / norm) < 1e-2 ? 0 : 1;
}
