// Attention in one pass over the keys (FlashAttention: softmax with a running maximum and sum). Queries are taken in
// blocks, keys in blocks that fit the second cache together with their values.
#include "attention.h"

#include <algorithm>
#include <cmath>

#include "tile.h"

namespace sdltx::kernels {

namespace {

constexpr int64_t query_block = 16 * tile_rows, key_block = 256;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where things are. Every head of keys has panels over its keys, whose length is that of a head; every head of values
// has, for each block of keys, panels over the values of a head, whose length is that of the block.
template <typename P>
struct Packed {
    using Unit = typename P::Unit;

    int64_t key_panels, value_panels, blocks;
    int64_t key_head, value_block, value_head;  // units of each

    explicit Packed(const AttentionShape& s)
        : key_panels((s.keys + panel_width - 1) / panel_width),
          value_panels((s.head_dim + panel_width - 1) / panel_width),
          blocks((s.keys + key_block - 1) / key_block),
          key_head(key_panels * panel_width * units<P>(s.head_dim)),
          value_block(value_panels * panel_width * units<P>(key_block)),
          value_head(blocks * value_block) {}

    int64_t values_at(const AttentionShape& s) const { return round_up(s.kv_heads * key_head, cache_line); }
    int64_t scratch_at(const AttentionShape& s) const {
        return values_at(s) + round_up(s.kv_heads * value_head, cache_line);
    }
    // Of a thread, in floats: queries, scores, weights and results of a block.
    static int64_t scratch(const AttentionShape& s) {
        return query_block * round_up(s.head_dim, panel_width) * 2 + 2 * tile_rows * key_block;
    }
};

template <typename P>
size_t bytes(const AttentionShape& s, int threads) {
    const Packed<P> at(s);
    return static_cast<size_t>(at.scratch_at(s) + threads * Packed<P>::scratch(s)) * sizeof(float) + cache_line;
}

template <typename P>
void pack(const AttentionShape& s, HeadRows k, HeadRows v, void* packed, Share share) {
    using Unit = typename P::Unit;
    const Packed<P> at(s);
    Unit* const keys = aligned<Unit>(packed);
    Unit* const values = keys + at.values_at(s);
    const int64_t length = units<P>(s.head_dim), items = s.kv_heads * at.blocks;
    constexpr int64_t room = (units<P>(max_head_dim) + lanes - 1) / lanes * lanes;
    Unit rows[lanes * room];
    for (int64_t i = share.begin(items); i < share.end(items); ++i) {
        const int64_t head = i / at.blocks, block = i % at.blocks;
        const int64_t first = block * key_block, count = std::min(key_block, s.keys - first);
        const int64_t padded = std::min(key_block, at.key_panels * panel_width - first);
        for (int64_t t = 0; t < padded; t += lanes) {
            for (int64_t j = 0; j < lanes; ++j)
                if (t + j < count)
                    P::convert(k.row(first + t + j, head), s.head_dim, 1, rows + j * room);
                else
                    std::fill_n(rows + j * room, length, Unit{});
            Unit* const to =
                keys + head * at.key_head + (first + t) / panel_width * panel_width * length + t % panel_width;
            for (int64_t d = 0; d < length; d += lanes)
                transpose(rows + d, room, to + d * panel_width, panel_width, std::min<int64_t>(lanes, length - d));
        }
        // A unit of values holds those of neighbouring keys.
        Unit* const to = values + head * at.value_head + block * at.value_block;
        for (int64_t u = 0; u < units<P>(key_block); ++u) {
            const float* joined[2] = {};
            for (int64_t n = 0; n < P::depth; ++n)
                if (u * P::depth + n < count) joined[n] = v.row(first + u * P::depth + n, head);
            for (int64_t p = 0; p < at.value_panels; ++p) {
                const int64_t width = std::min<int64_t>(panel_width, s.head_dim - p * panel_width);
                const float* const part[2] = {joined[0] ? joined[0] + p * panel_width : nullptr,
                                              joined[1] ? joined[1] + p * panel_width : nullptr};
                Unit* const at_unit = to + (p * units<P>(key_block) + u) * panel_width;
                P::interleave(part, width, at_unit);
                std::fill_n(at_unit + width, panel_width - width, Unit{});
            }
        }
    }
}

// A block of queries of one head.
template <typename P>
class Block {
    using Unit = typename P::Unit;

 public:
    Block(const AttentionJob& job, Share share)
        : job_(job),
          at_(job.shape),
          keys_(aligned<Unit>(job.packed)),
          values_(keys_ + at_.values_at(job.shape)),
          length_(units<P>(job.shape.head_dim)),
          width_(at_.value_panels * panel_width) {
        float* scratch =
            reinterpret_cast<float*>(keys_) + at_.scratch_at(job.shape) + share.index * Packed<P>::scratch(job.shape);
        results_ = scratch;
        scores_ = results_ + query_block * width_;
        weights_ = reinterpret_cast<Unit*>(scores_ + tile_rows * key_block);
        queries_ = weights_ + tile_rows * key_block;
    }

    void run(int64_t head, int64_t first) {
        const AttentionShape& s = job_.shape;
        const int64_t count = std::min(query_block, job_.queries - first), kv_head = head / (s.heads / s.kv_heads);
        for (int64_t i = 0; i < count; ++i) {
            P::convert(job_.q.row(first + i, head), s.head_dim, job_.scale, queries_ + i * length_);
            most_[i] = -INFINITY;
            sum_[i] = 0;
        }
        std::fill_n(results_, count * width_, 0.0f);
        for (int64_t b = 0; b < at_.blocks; ++b)
            for (int64_t i = 0; i < count; i += tile_rows)
                add(kv_head, b, first, i, static_cast<int>(std::min<int64_t>(tile_rows, count - i)));
        for (int64_t i = 0; i < count; ++i) {
            const float factor = sum_[i] > 0 ? 1 / sum_[i] : 0;
            float* to = job_.out + (first + i) * job_.out_token + head * job_.out_head;
            for (int64_t d = 0; d < s.head_dim; ++d) to[d] = results_[i * width_ + d] * factor;
        }
    }

 private:
    // What the keys of block b give to queries i, i + 1, ...
    void add(int64_t kv_head, int64_t b, int64_t first, int64_t i, int rows) {
        const int64_t key = b * key_block, count = std::min(key_block, job_.shape.keys - key);
        const int64_t padded = round_up(count, panel_width), used = units<P>(count);
        const Unit* x[tile_rows];
        float* out[tile_rows];
        for (int r = 0; r < rows; ++r) x[r] = queries_ + (i + r) * length_;
        const Run head{0, length_}, block{0, used};
        for (int64_t j = 0; j < padded; j += panel_width) {
            for (int r = 0; r < rows; ++r) out[r] = scores_ + r * key_block + j;
            multiply<P>(rows, x, &head, 1, keys_ + kv_head * at_.key_head + (key + j) * length_, out, false);
        }
        for (int r = 0; r < rows; ++r) {
            float* scores = scores_ + r * key_block;
            if (job_.mask) {
                const uint16_t* mask = job_.mask + (first + i + r) * job_.mask_stride + key;
                for (int64_t j = 0; j < count; ++j) scores[j] += half_to_float(mask[j]);
            }
            if (job_.bias) add_bias(first + i + r, key, count, scores);
            std::fill(scores + count, scores + padded, -INFINITY);
            softmax(scores, padded, used, i + r, weights_ + r * key_block);
            x[r] = weights_ + r * key_block;
        }
        for (int64_t p = 0; p < at_.value_panels; ++p) {
            for (int r = 0; r < rows; ++r) out[r] = results_ + (i + r) * width_ + p * panel_width;
            const Unit* values = values_ + kv_head * at_.value_head + b * at_.value_block;
            multiply<P>(rows, x, &block, 1, values + p * panel_width * units<P>(key_block), out, true);
        }
    }

    void add_bias(int64_t query, int64_t key, int64_t count, float* scores) const {
        const float* bias = job_.bias + job_.bias_row[query] * job_.shape.keys + key;
        for (int64_t j = 0; j < count; ++j) scores[j] += bias[j];
        const int64_t own = std::clamp<int64_t>(job_.query_biased_keys - key, 0, count);
        for (int64_t j = 0; j < own; ++j) scores[j] += job_.query_bias[query];
    }

    // Scores -> weights relative to the largest so far, and the results of query i as if it had always been that.
    void softmax(float* scores, int64_t padded, int64_t used, int64_t i, Unit* weights) {
        Vec most = splat(-INFINITY);
        for (int64_t j = 0; j < padded; j += lanes) most = max(most, load(scores + j));
        const float now = std::max(most_[i], max_of(most));
        if (now > most_[i]) {
            const float factor = std::exp(most_[i] - now);  // 0 at first
            sum_[i] *= factor;
            float* results = results_ + i * width_;
            for (int64_t d = 0; d < width_; d += lanes) store(results + d, load(results + d) * factor);
            most_[i] = now;
        }
        Vec sum{};
        for (int64_t j = 0; j < padded; j += lanes) {
            const Vec x = load(scores + j);
            // Keys that are masked have no weight, also where all are.
            const Vec e = x == -INFINITY ? Vec{} : P::weight(x - now);
            sum += e;
            store(scores + j, e);
        }
        sum_[i] += sum_of(sum);
        P::convert(scores, used * P::depth, 1, weights);
    }

    const AttentionJob& job_;
    const Packed<P> at_;
    Unit *const keys_, *const values_;
    const int64_t length_, width_;  // of a head in units, of its results in floats
    float *results_, *scores_;
    Unit *weights_, *queries_;
    float most_[query_block], sum_[query_block];
};

template <typename P>
void run(const AttentionJob& job, Share share) {
    Block<P> block(job, share);
    const int64_t blocks = (job.queries + query_block - 1) / query_block, items = job.shape.heads * blocks;
    for (int64_t i = share.begin(items); i < share.end(items); ++i) block.run(i / blocks, i % blocks * query_block);
}

}  // namespace

size_t packed_attention_bytes(const AttentionShape& shape, int threads, bool exact) {
    return exact ? bytes<F32>(shape, threads) : bytes<Bf16>(shape, threads);
}

void pack_attention(const AttentionShape& shape, HeadRows k, HeadRows v, void* packed, bool exact, Share share) {
    return exact ? pack<F32>(shape, k, v, packed, share) : pack<Bf16>(shape, k, v, packed, share);
}

void attention(const AttentionJob& job, Share share) {
    return job.exact ? run<F32>(job, share) : run<Bf16>(job, share);
}

}  // namespace sdltx::kernels
