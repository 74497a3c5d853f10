// A text tower of the Gemma family: token ids to the states of all layers. What differs between its members is in their
// layers.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/types.h"
#include "ggml/linear.h"
#include "ggml/model_file.h"
#include "ggml/ops.h"
#include "ggml/weights.h"
#include "ggml/workspace.h"

namespace sdltx {

class Stream;

// One of the two kinds of attention that layers of a tower have.
struct AttentionKind {
    int64_t head_dim;
    int64_t key_value_heads;
    int64_t window;                   // keys that a query sees, itself included; 0: all before it
    std::vector<double> frequencies;  // of the head_dim / 2 pairs of a head, in radians per position
};

struct TowerShape {
    int64_t hidden_size, num_hidden_layers, vocab_size;
    double rms_norm_eps;
    std::array<AttentionKind, 2> kinds;  // [0] of layers with a window, [1] of global ones
};

// The feed-forward layer of all of them: down(gelu_tanh(gate x) * (up x)).
struct GatedFeedForward {
    Linear gate_proj, up_proj, down_proj;
};

// What a layer has in all of them; its linear layers have no biases.
struct TowerLayer {
    ggml_tensor *input_layernorm, *post_attention_layernorm, *pre_feedforward_layernorm, *post_feedforward_layernorm;
    ggml_tensor *q_norm, *k_norm;
    Linear q_proj, k_proj, v_proj, o_proj;
    GatedFeedForward mlp;
};
struct TowerLayerShape {
    int64_t heads, key_value_heads, head_dim, intermediate_size;
    bool has_v_proj;  // else keys are the values
    float plus;       // is added to the weights of norms
};

class TextTower {
 public:
    virtual ~TextTower();
    TextTower(const TextTower&) = delete;
    TextTower& operator=(const TextTower&) = delete;

    int64_t hidden_size() const { return shape_.hidden_size; }
    int64_t num_hidden_layers() const { return shape_.num_hidden_layers; }
    Weights& weights() { return weights_; }

    // ids (N) without padding -> hidden states (L+1, N, hidden): scaled embeddings, the residual after each layer but
    // the last, and the final norm of the last. Attention is relative and padding is masked in the reference, so the
    // real tokens at positions 0..N-1 give the same numbers. The weights outside the layers must be there. `on_layer`
    // is called after every layer with how many are done. Stages: "embed_tokens", "layers.<i>", "norm".
    Array encode(const std::vector<int32_t>& ids, Trace* trace, const std::function<void(int64_t done)>& on_layer = {});
    // What it takes for so many ids, its result on the host included; nothing is allocated.
    MemoryUse measure(int64_t tokens);

    // Reads a text bit by bit, and tells after each what may come next.
    class Reader;
    // Whether it was trained to go on with texts, and has the weights for it.
    bool writes() const { return head_.w != nullptr; }
    // Whether the weights of that are among those that are brought.
    void use_head(bool wanted) {
        weights_.leave_out(wanted ? 0 : for_writing);
        weights_.let_go_of_left_out();
    }
    // What a Reader takes that is given `first` ids at once, and `most` in all.
    MemoryUse measure_reading(int64_t first, int64_t most);

 protected:
    // Keys and values of the tokens that were read before, by layer; [head_dim, key_value_heads, most].
    struct Past {
        std::vector<ggml_tensor*> keys, values;
        int64_t tokens = 0;
    };
    // What lives from layer to layer, for n tokens; [0] belongs to layers with a window, [1] to global ones.
    struct Tensors {
        // keys: that are looked at; with a past more than n.
        Tensors(const Backend& backend, const TowerShape& shape, int64_t n, int64_t keys, size_t device);
        size_t device;
        State state;
        ggml_tensor* h;                // [hidden, n]
        ggml_tensor *cos[2], *sin[2];  // [head_dim/2, 1, n]
        ggml_tensor* mask[2];          // [keys, n] F16
        const Past* past = nullptr;
    };

    // Declares the embeddings. What is derived declares the layers in turn, and then the final norm.
    TextTower(const ModelFiles& files, Workspace& workspace, TowerShape shape);

    // The residual behind a layer, from that before it, t.h.
    virtual ggml_tensor* layer(Plan& g, const Tensors& t, size_t index) const = 0;
    // Which kind of attention a layer has.
    virtual size_t kind_of(size_t index) const = 0;
    // The id whose embedding stands for this one.
    virtual int32_t embedded(int32_t id) const { return id; }

    // Layer i, a block of weights of its own, to which what is declared next belongs too.
    TowerLayer declare_layer(int64_t i, const TowerLayerShape& shape);
    void declare_norm(float plus);  // comes and goes with the last layer
    void declare_head();            // the embeddings once more, as scores of what comes next
    // Adds the keys and values [head_dim, key_value_heads, n] of a layer to those before, if there is a past, and makes
    // them all of them.
    static void remember(Plan& g, const Tensors& t, size_t index, ggml_tensor*& keys, ggml_tensor*& values);
    // The residual behind a layer, from that before it, h [hidden, n], and the results of its heads, [heads head_dim,
    // n].
    ggml_tensor* behind_attention(Plan& g, const TowerLayer& l, ggml_tensor* h, ggml_tensor* attended) const;
    float eps() const { return static_cast<float>(shape_.rms_norm_eps); }

 private:
    static constexpr unsigned for_writing = 1;  // a use of weights

    // Tensors of n tokens at positions [first, first + n), for each device.
    std::vector<std::unique_ptr<Tensors>> places(int64_t first, int64_t n, int64_t keys) const;
    // Runs all layers over embeddings; `behind` is called after each with where its result is.
    void run_layers(const std::vector<std::unique_ptr<Tensors>>& places, const std::vector<float>& embedded,
                    Stream& stream, Trace* trace, const std::function<void(const Tensors& t, size_t index)>& behind);
    // The ids that are embedded for these. Throws Error(model_mismatch) for others than there are.
    std::vector<int32_t> checked(const std::vector<int32_t>& ids) const;
    // Room for the past of `most` tokens, in the states of the devices that compute it.
    Past past_in(const std::vector<std::unique_ptr<State>>& states, int64_t most) const;
    // What scores the next token behind a final state.
    std::unique_ptr<Plan> head_plan(Trace* trace, ggml_tensor*& h, ggml_tensor*& scores) const;
    std::vector<float> scores(const std::vector<float>& state, Trace* trace);
    // Scaled embeddings [hidden, n].
    std::vector<float> embed(const std::vector<int32_t>& ids, Trace* trace) const;
    std::unique_ptr<Plan> plan(const Tensors& t, size_t index, Trace* trace) const;

    TowerShape shape_;
    Workspace& workspace_;
    Weights weights_;
    RowTable embed_tokens_;
    ggml_tensor* norm_ = nullptr;
    Linear head_;  // not scaled, without a bias
};

class TextTower::Reader {
 public:
    // The tower must outlive it, and its weights be there, with the head. most: tokens in all.
    Reader(TextTower& tower, int64_t most, Trace* trace);
    ~Reader();

    // Goes on by one id or several, and returns how likely each of the vocabulary is to come next, before any softmax.
    // Stages as of encode(), and "lm_head".
    std::vector<float> read(const std::vector<int32_t>& ids, const std::function<void(int64_t done)>& on_layer = {});

 private:
    TextTower& tower_;
    Trace* trace_;
    int64_t most_;
    std::vector<std::unique_ptr<State>> states_;  // by device
    Past past_;
    std::unique_ptr<Stream> stream_;
};

// Rotary frequencies base^(-2j/head_dim) / factor of j = 0, 1, ...
std::vector<double> rotary_frequencies(int64_t head_dim, double base, double factor = 1);

}  // namespace sdltx
