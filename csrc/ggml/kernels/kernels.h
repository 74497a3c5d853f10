// Our own CPU kernels: what ggml's reach a fraction of the processor's speed with, on the shapes of LTX-2. Plain
// functions of plain memory, each for one thread of several that share the work; results do not depend on how many
// there are.
//
// The files of this folder are compiled once for each level of cmake/cpu_levels.cmake, and cpu_kernels() knows which
// table runs here. "exact": products of float32, added in float32. Else of bfloat16, where the processor has
// instructions for that, added in float32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sdltx {

// Which part of the work is a thread's.
struct Share {
    int index, count;

    // Of n items: [begin, end).
    int64_t begin(int64_t n) const { return n * index / count; }
    int64_t end(int64_t n) const { return n * (index + 1) / count; }
};

// Heads of tokens, each a row of packed floats; strides in floats.
struct HeadRows {
    const float* data;
    int64_t token, head;

    const float* row(int64_t t, int64_t h) const { return data + t * token + h * head; }
};

struct AttentionShape {
    int64_t head_dim, heads, kv_heads, keys;  // heads: a multiple of kv_heads
};

// softmax(q k^T scale + mask) v for each head.
struct AttentionJob {
    AttentionShape shape;
    int64_t queries;
    HeadRows q;
    const void* packed;    // by pack_attention
    const uint16_t* mask;  // half precision [queries, keys], or null
    int64_t mask_stride;   // of its rows
    // What else is added to scores, if anything: row bias_row[i] for query i, and query_bias[i] for its first keys.
    const float* bias;
    const int32_t* bias_row;
    const float* query_bias;
    int64_t query_biased_keys;
    float scale;
    float* out;  // rows of head_dim
    int64_t out_token, out_head;
    bool exact;
};

// How weights are stored: what is unpacked by vectors, or by ggml's function for the type.
enum class WeightType { f32, f16, bf16, e4m3, e5m2, q8_0, q4_0, q5_0, q6_k, other };

// A matrix of stored weights, or several of one size that belong together.
struct WeightRows {
    WeightType type;
    const void* data;
    int64_t stride;              // bytes from a row to the next
    int64_t block, block_bytes;  // values that are stored together, and their bytes
    int64_t rows;
    int64_t matrices, matrix_stride;                            // bytes from one to the next
    void (*widen)(const void* from, float* to, int64_t count);  // whole blocks
    const uint8_t* powers;  // of two, for each block of a row, where place_of_block_scale() says; null: 1
};

// Scales of blocks lie in tiles of 128 rows by 4 blocks, in which 32 rows stand beside each other. `blocks`: of a row.
constexpr int64_t place_of_block_scale(int64_t row, int64_t block, int64_t blocks) {
    const int64_t tile = row / 128 * ((blocks + 3) / 4) + block / 4;
    return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
}

// The exponent of a power of two, 127 more; the last one is not a number.
constexpr uint8_t no_power = 255;

enum class Activation { none, gelu_tanh };

// Where the rows of a product lie, in units of 4 bytes: exact, floats, otherwise what pack_rows and pack_volume make.
// Rows are the pixels of a volume; those of a plain matrix are one long line.
struct ProductRows {
    const void* data;
    int64_t width, height;       // pixels of a line, lines of a frame
    int64_t pixel, line, frame;  // from one to the next
    const int64_t* offsets;      // of each of the matrices: what a row of it is multiplied with begins there
};

// Frames of a volume with what is beside them, as rows of a product that is a convolution.
struct VolumeJob {
    const float* x;  // channels last
    int64_t channels, width, height, frames;
    int64_t pixel, line, frame;  // floats from one to the next
    int64_t columns, lines;      // on each side of a frame
    bool reflect;                // they are mirrored at the outermost pixel, which is not repeated; else 0
    int64_t first, count;        // frames from here on, also such that are not there
    bool repeat;                 // those are the first or the last; else 0
    void* packed;
    bool exact;
};

// y[t][n] = activation(scale[n] * sum over matrices m and k of w[m][n][k] x[t][offset[m] + k] + bias[n] +
// residual[t][n])
struct ProductJob {
    WeightRows w;
    int64_t columns;  // values of a row of w
    ProductRows x;
    int64_t rows;  // of x and y
    float* y;
    int64_t y_stride;       // floats, also of the residual
    const float* residual;  // null: 0
    const float* scale;     // null: 1
    bool one_scale;         // for all rows of w
    const float* bias;      // null: 0
    Activation activation;
    void* scratch;  // product_scratch() bytes
    bool exact;
};

// x + weight sin^2(frequency x) for each channel, at twice the rate between a filter up and one down (BigVGAN's
// activation with alias-free torch's filters). Samples beyond the ends are those at the ends.
constexpr int snake_taps = 12;
struct SnakeJob {
    const float* x;  // samples of all channels, one after the other
    int64_t channels, length;
    const float *frequency, *weight;  // of each channel
    const float *up, *down;           // taps of the filters
    float* y;                         // as x
};

// y = x / root mean square of a row * scale + shift, then pairs (j, j + half) of every head rotated by angles.
struct NormJob {
    const float* x;
    int64_t x_stride, width, rows;  // floats; rows of y are packed
    float eps;
    const float *scale, *shift;  // [width], null: 1 and 0
    float* y;
    // half 0: nothing is rotated. A head has 2 half values, a row some heads, a token some rows.
    int64_t half, rows_of_token;
    const float *cos, *sin;             // [half] for each head of each token
    int64_t angles_token, angles_head;  // from one to the next; 0: all heads have the same
};

// z = x + y gate, for rows of width floats.
struct GateJob {
    const float *x, *y;
    const float* gate;  // [width], of all rows
    float* z;
    int64_t width, rows;
};

// y = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
struct GeluJob {
    const float* x;
    float* y;
    int64_t count;
};

struct Kernels {
    // Whether what is not exact is another, faster thing.
    bool fast;
    // Rows of floats as products take them that are not exact: each in units of 4 bytes.
    int64_t (*packed_units)(int64_t columns);
    void (*pack_rows)(const float* x, int64_t stride, int64_t columns, int64_t rows, void* packed, Share share);
    size_t (*product_scratch)(int64_t columns, int64_t matrices, int threads, bool exact);
    void (*product)(const ProductJob& job, Share share);
    void (*pack_volume)(const VolumeJob& job, Share share);
    void (*norm)(const NormJob& job, Share share);
    void (*gate)(const GateJob& job, Share share);
    void (*gelu_tanh)(const GeluJob& job, Share share);
    void (*snake)(const SnakeJob& job, Share share);
    // Keys and values in the order in which they are multiplied, and what `threads` threads of attention() need.
    size_t (*packed_attention_bytes)(const AttentionShape& shape, int threads, bool exact);
    void (*pack_attention)(const AttentionShape& shape, HeadRows k, HeadRows v, void* packed, bool exact, Share share);
    // head_dim: up to max_head_dim.
    void (*attention)(const AttentionJob& job, Share share);
};

constexpr int64_t max_head_dim = 512;

}  // namespace sdltx

extern "C" const sdltx::Kernels* sdltx_kernels(void);
