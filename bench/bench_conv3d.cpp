// The two lowerings of the VAE's 3x3x3 convolution, windows and columns (csrc/ggml/conv3d.h), run alternately on the
// same kernel and values. Usage: bench_conv3d [channels=128] [frames=9] [height=64] [width=64] [pairs=5] [MiB of a
// piece of windows=0: the default]
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

#include "ggml/conv3d.h"
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
    const int64_t voxels = frames * height * width;
    const auto values = random_values(static_cast<size_t>(c * voxels), 1.0f);
    const std::string path = write_kernel(kernel, c);
    const ModelFiles files({path});
    const Backend backend("cpu", false, 0);

    struct Way {
        Way(const Backend& backend, const ModelFiles& files, ConvLowering lowering, int64_t channels,
            std::array<int64_t, 3> shape, int64_t piece)
            : weights(files, backend, "bench", ""), workspace(backend), plan(backend, "bench", nullptr) {
            ConvOptions options;
            options.lowering = lowering;
            const Conv3d conv = declare_conv3d(weights, "c", channels, channels, {3, 3, 3}, options);
            weights.acquire({});
            x = plan.input("x", GGML_TYPE_F32, {channels, shape[2], shape[1], shape[0]});
            y = plan.output(conv3d(plan, conv, x, TimePadding::replicate, nullptr, piece), "y");
        }
        Weights weights;
        Workspace workspace;
        Plan plan;
        ggml_tensor *x, *y;
    };
    const std::array<int64_t, 3> shape = {frames, height, width};
    Way windows(backend, files, ConvLowering::windows, c, shape, piece),
        columns(backend, files, ConvLowering::columns, c, shape, 0);
    for (Way* way : {&windows, &columns}) way->plan.set(way->x, values);

    std::vector<double> a, b;
    for (int64_t i = 0; i <= pairs; ++i) {
        const double ta = seconds(windows.workspace, windows.plan), tb = seconds(columns.workspace, columns.plan);
        if (i == 0) continue;  // warm-up
        a.push_back(ta);
        b.push_back(tb);
    }
    const auto mine = windows.plan.get(windows.y), theirs = columns.plan.get(columns.y);
    double error = 0, norm = 0;
    for (size_t i = 0; i < mine.size(); ++i) {
        error += (mine[i] - theirs[i]) * (mine[i] - theirs[i]);
        norm += theirs[i] * theirs[i];
    }
    const double flop = 2.0 * 27 * static_cast<double>(c * c * voxels);
    std::printf("conv3d 3x3x3, %lld channels, %lldx%lldx%lld, %d threads, medians of %zu pairs\n", (long long)c,
                (long long)frames, (long long)height, (long long)width, backend.threads(), a.size());
    std::printf("  windows %8.1f ms  %7.1f GFLOP/s  %6.1f MiB of working memory\n", median(a) * 1e3,
                flop / median(a) / 1e9, mib(windows.workspace, windows.plan));
    std::printf("  columns %8.1f ms  %7.1f GFLOP/s  %6.1f MiB\n", median(b) * 1e3, flop / median(b) / 1e9,
                mib(columns.workspace, columns.plan));
    std::printf("  ratio %.2f, results differ by %.1e relative RMS\n", median(b) / median(a), std::sqrt(error / norm));
    std::filesystem::remove(path);
    return std::sqrt(error / norm) < 1e-2 ? 0 : 1;
}
