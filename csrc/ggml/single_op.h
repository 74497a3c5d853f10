// The op builders one at a time, arrays in and an array out: what their tests and other languages call. Shapes in NumPy
// order; channels are the last axis. On the CPU, or where set_device() says.
#pragma once

#include <array>
#include <string>

#include "base/export.h"
#include "base/types.h"

namespace sdltx::single_op {

// Where what follows on this thread is computed; `exact` counts on the CPU only.
SDLTX_EXPORT void set_device(const std::string& device);
// How often what follows on this thread is run, and how long each time took, in seconds: for benchmarks.
SDLTX_EXPORT void set_runs(int runs);
SDLTX_EXPORT std::vector<double> seconds_of_runs();

struct Conv3dResult {
    Array y;       // (F, H, W, out)
    size_t bytes;  // of inputs and working memory
};
// Kernel name.weight (out, in, kt, kh, kw) and name.bias of a model file; x (F, H, W, in). time: "causal", "replicate"
// or "causal_zeros". lowering: "own", "windows" or "columns". residual (F, H, W, out) or empty is added twice: by the
// convolution, and to what it gives, so that it has to stay as it is.
SDLTX_EXPORT Conv3dResult conv3d(const std::string& path, const std::string& name, const Array& x, int64_t out,
                                 std::array<int, 3> kernel, const std::string& time, int64_t piece_bytes, bool exact,
                                 bool bias, const std::string& lowering, bool reflect, const Array& residual,
                                 int threads);
// q (T, H, D), k and v (S, Hkv, D), mask (T, S) or empty -> (1, T, H, D). kernel: "own", or what other devices do:
// "device" or, without a kernel of theirs, "plain". patience: see Backend, 0 = its own.
// Of AttentionBias; no rows: none.
struct BiasCase {
    Array rows, own;
    std::vector<int32_t> which;
    int64_t count = 0;
};
SDLTX_EXPORT Array attention(const Array& q, const Array& k, const Array& v, const BiasCase& bias, float scale,
                             bool exact, int64_t patience, int threads);
SDLTX_EXPORT Array attention(const Array& q, const Array& k, const Array& v, const Array& mask, float scale, bool exact,
                             const std::string& kernel, int64_t patience, int threads);
// Rows of floats in a type of ggml, by its name.
SDLTX_EXPORT std::vector<uint8_t> quantise(const Array& rows, const std::string& type);
// activation(scale * w x + bias): w (N, K) as quantise() gives it, or codes of "e4m3" or "e5m2", the first with powers
// of two of their blocks as MXFP8 has them, or none; x (T, K), bias (N) and scale (1 or N) or empty ->
// (T, N). activation: "none" or "gelu_tanh".
struct LinearCase {
    std::string type;
    std::vector<uint8_t> w, powers;
    int64_t outputs;
    Array x, bias, scale;
    std::string activation;
    bool exact;
    int64_t patience;  // see Backend, 0 = its own
    int threads;       // 0 = its own
    bool own;          // by our kernel where it can, or by ggml's
};
SDLTX_EXPORT Array linear(const LinearCase& c);
SDLTX_EXPORT Array depth_to_space(const Array& x, std::array<int, 3> stride);
SDLTX_EXPORT Array pad_width(const Array& x, int64_t before, int64_t after);
// w may be empty.
SDLTX_EXPORT Array rms_norm(const Array& x, const Array& w, float eps);
// x (T, rows, n head_dim), w (n head_dim), cos and sin (T, heads or 1, head_dim / 2) or empty -> (1, T, heads,
// head_dim).
SDLTX_EXPORT Array normed_heads(const Array& x, const Array& w, int64_t head_dim, const Array& cos, const Array& sin,
                                float eps, int threads);
// x and y (T, D), scale1, shift and gate (K, D), runs of first row, count and value.
using Runs = std::vector<std::array<int64_t, 3>>;
SDLTX_EXPORT Array modulate(const Array& x, const Array& scale1, const Array& shift, const Runs& runs);
SDLTX_EXPORT Array modulated_norm(const Array& x, const Array& scale1, const Array& shift, const Runs& runs, float eps,
                                  int threads);
SDLTX_EXPORT Array gated_sum(const Array& x, const Array& y, const Array& gate, const Runs& runs, int threads);
SDLTX_EXPORT Array gelu_tanh(const Array& x, bool exact);
SDLTX_EXPORT Array rotate_half(const Array& x, const Array& cos, const Array& sin);

// Seconds that it takes to copy so many bytes to a device as weights go there, straight, and back; the least of five.
SDLTX_EXPORT std::array<double, 3> copy_seconds(const std::string& device, size_t bytes);

// Whether a run on `device` in three pieces, the middle one on the CPU, ends when the poll says so once in the first.
SDLTX_EXPORT bool stop_ends_all_pieces(const std::string& device);

// The share of a file that is in memory `seconds` after it was said to be needed.
SDLTX_EXPORT double resident_after_advice(const std::string& path, double seconds);

// Fails an assertion of ggml, which ends the process.
[[noreturn]] SDLTX_EXPORT void abort(const std::string& message);

}  // namespace sdltx::single_op
