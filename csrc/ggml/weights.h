// The weights of one network: declared by name and shape, checked together, brought to the device when they are needed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "arena.h"
#include "backend.h"
#include "base/types.h"
#include "conversion.h"
#include "model_file.h"

namespace sdltx {

// A matrix whose product is still to be multiplied: by one number [1], or by one for each result [out].
struct ScaledMatrix {
    ggml_tensor* w;
    ggml_tensor* scale;        // null for none
    const TensorInfo* stored;  // of fp8_type, else null
};

// A lookup table, whose rows are read where they lie in the file, wherever the rest is computed.
struct RowTable {
    const TensorInfo* stored;  // null when missing, which problems() tells
    int64_t width;

    // The rows of these numbers, which must be there, one after the other.
    std::vector<float> rows(const std::vector<int32_t>& numbers) const;
};

class Weights {
 public:
    // `component` names the network in errors, `prefix` goes before every name.
    Weights(const ModelFiles& files, const Backend& backend, std::string component, std::string prefix);

    // What is declared from now on belongs to a new block, the next one from 0 on; what was declared before the first
    // belongs to none. Blocks come and go on their own.
    void begin_block();
    // What is declared from now on belongs to no block again.
    void end_blocks() { declaring_ = 0; }
    // What is declared from now on is for these uses, a bit each; 0: for all of them.
    void begin_use(unsigned uses) { declaring_uses_ = uses; }
    // What is for one of these uses is not needed from now on: it is not brought, and counts nowhere.
    void leave_out(unsigned uses) { left_out_ = uses; }

    // Declarations. Shapes are in the checkpoint's order (slowest axis first); the tensors have data once acquired.
    // Matrix (out, in) of a Linear: as stored, or F32 where exactness asks for it. ne = [in, out].
    ggml_tensor* matrix(const std::string& name, std::vector<int64_t> shape);
    // The same for weights in an encoding that ggml does not have: in the type that loses nothing, if there is one.
    ScaledMatrix scaled_matrix(const std::string& name, std::vector<int64_t> shape);
    // Lookup table (rows, width).
    RowTable table(const std::string& name, std::vector<int64_t> shape);
    // Bias, norm weight or modulation table, always F32; `plus` is added to every element.
    ggml_tensor* vector(const std::string& name, std::vector<int64_t> shape, float plus = 0);
    // A weight whose elements change places on load: `order` lists the axes of the new layout, slowest first, with
    // their strides in the stored one.
    ggml_tensor* permuted(const std::string& name, std::vector<int64_t> shape, ggml_type type, std::vector<int64_t> ne,
                          std::vector<Axis> order);
    // A weight of which something is computed on load, always F32.
    ggml_tensor* laid_out(const std::string& name, std::vector<int64_t> shape, std::vector<int64_t> ne,
                          Layout::Fill fill);

    // The tensors that were declared, by group: 0 for those of no block, i + 1 for those of block i.
    struct Tensor {
        std::string name;  // without the prefix
        ggml_tensor* tensor;
        std::vector<int64_t> shape;
        size_t group;
    };
    std::vector<Tensor> tensors() const;
    size_t num_blocks() const { return groups_.size() - 1; }

    // The stored type of a weight; GGML_TYPE_F32 when it is missing (problems() will tell).
    ggml_type stored_type(const std::string& name) const;
    // Values of a small weight that the host needs, F32; they come and go as others do.
    std::shared_ptr<const std::vector<float>> host(const std::string& name, std::vector<int64_t> shape);

    // What is wrong with the declarations: missing, misshapen, duplicate or unreadable tensors, one line each.
    std::vector<std::string> problems() const;

    // Maps, converts and uploads what is not there yet, but for blocks that pass through. Call check_weights() first.
    // Throws Error(out_of_memory); after an error nothing more is held than before.
    void acquire(const Progress& progress);
    // How many weights acquire() would bring.
    int64_t missing() const;
    // The counterpart of each acquire(); gives everything back after the last one, unless weights stay for good.
    void release();
    // What of the blocks stays once it is there; the rest passes through.
    struct Kept {
        std::vector<bool> blocks;   // with memory of their own; empty: all
        size_t pages = SIZE_MAX;    // bytes of blocks that lie in files, the first ones
        size_t ahead = 1ull << 30;  // bytes of files that are read before their block is computed
        bool brings_ahead = true;   // there is room for the next of those that pass, too
    };
    void keep(Kept kept);
    const Kept& kept() const { return kept_; }
    // Whether it is acquired.
    bool in_use() const { return holders_ > 0; }
    // What a group takes: of memory of its own, and where it lies in the files.
    struct Size {
        size_t own = 0, mapped = 0;
        Size& operator+=(const Size& other) {
            own += other.own;
            mapped += other.mapped;
            return *this;
        }
    };
    Size size_of(size_t group) const;
    Size size() const;
    // Memory of its own that it has now.
    size_t held(size_t device) const;

    // Brings one block, if it is not there yet. Another thread may bring another block at the same time.
    void enter(size_t block);
    // Where in files a block is used from, or brought from each time.
    struct Range {
        const MappedFile* file;
        const uint8_t* begin;
        size_t bytes;
    };
    std::vector<Range> ranges(size_t block) const;
    // A file of what is used where it lies; null if nothing is.
    const MappedFile* file() const;
    // The block has done its work for now: what has memory of its own stays, or passes.
    void leave(size_t block);
    // Where in files it was, that is not to stay in memory.
    std::vector<Range> passing(size_t block) const;
    // Gives back what is there unless it is acquired: memory of its own, and where files lie in memory.
    void let_go();
    void let_go_of_pages();
    // The same for groups with memory of their own for what is left out by now.
    void let_go_of_left_out();

    // Which of the backends has the block; what belongs to none is on the first.
    size_t device_of(size_t block) const { return backend_.device_of(block, groups_.size() - 1); }

    const Backend& backend() const { return backend_; }
    bool exact() const { return backend_.exact(); }
    // Bytes that the device uses where they lie in the mapped files.
    size_t mapped() const;

 private:
    struct Declared {
        std::string name;
        std::vector<int64_t> shape;
        const TensorInfo* info = nullptr;            // null when missing
        ggml_tensor* tensor = nullptr;               // null for host weights and tables
        std::shared_ptr<std::vector<float>> values;  // of host weights
        bool in_place = false;                       // the device uses the bytes of the mapped file
        bool pass = false;                           // which are not to stay in memory
        unsigned uses = 0;                           // see begin_use()
        Layout layout;
    };
    // Weights that come and go together.
    struct Group {
        std::vector<size_t> declared;
        std::vector<Buffer> buffers;
        bool present = false;
        unsigned lacks = 0;  // uses that were left out when it was brought
    };

    // Where it is in files: the weight, and scales of its blocks.
    static std::array<const TensorInfo*, 2> parts(const Declared& d);  // the second may be null
    static size_t stored_bytes(const Declared& d);
    static void add_ranges(const Declared& d, std::vector<Range>& to);
    static std::vector<Range> merged(std::vector<Range> ranges);
    ggml_tensor* declare(const std::string& name, std::vector<int64_t> shape, ggml_type type, std::vector<int64_t> ne,
                         Declared how);
    std::string problem(const Declared& d) const;
    ggml_backend_buffer_t buffer_over(const ModelFile& file);
    // Numbers of the groups that acquire() would bring.
    std::vector<size_t> absent() const;
    void bring(const std::vector<size_t>& groups, const Progress& progress);
    // Gives the weights of a group memory, without their values.
    void place(size_t group);
    void drop(size_t group, bool keep_buffers);
    void convert_all(const std::vector<size_t>& which, const Progress& progress) const;
    bool needs(const Declared& d) const { return (d.uses & left_out_) == 0; }
    // Whether all that is needed of a group is there.
    bool complete(const Group& group) const { return group.present && (group.lacks & ~left_out_) == 0; }
    bool passes(size_t group) const { return group > 0 && !kept_.blocks.empty() && !kept_.blocks[group - 1]; }

    const ModelFiles& files_;
    const Backend& backend_;
    std::string component_, prefix_;
    TensorArena arena_;
    std::vector<Declared> declared_;
    std::vector<Group> groups_;  // the first one is that of no block
    size_t declaring_ = 0;       // the group that declarations belong to
    unsigned declaring_uses_ = 0, left_out_ = 0;
    int holders_ = 0;  // acquire() without release()
    Kept kept_;
    std::unique_ptr<std::mutex> shared_ = std::make_unique<std::mutex>();  // of mapped_ and spare_
    std::vector<std::pair<const ModelFile*, Buffer>> mapped_;
    std::vector<Buffer> spare_;  // of blocks that were left: a ring as long as the number of blocks held at a time
};

// Throws Error(model_mismatch) that lists every problem of every network.
void check_weights(const std::vector<Weights*>& networks);

}  // namespace sdltx
