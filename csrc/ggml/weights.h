// The weights of one network: declared by name and shape, checked together, then placed on a device.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "model_file.h"
#include "types.h"

namespace sdltx {

// One axis of a layout: how long it is, and how far apart its neighbours lie in another layout, in elements.
struct Axis {
    int64_t length, stride;
};

class Weights {
 public:
    // `component` names the network in errors, `prefix` goes before every name.
    Weights(const ModelFiles& files, const Backend& backend, std::string component, std::string prefix);

    // Declarations. Shapes are in the checkpoint's order (slowest axis first); the tensors have data after load().
    // Matrix (out, in) of a Linear: as stored, or F32 where exactness asks for it. ne = [in, out].
    ggml_tensor* matrix(const std::string& name, std::vector<int64_t> shape);
    // Lookup table (rows, width), as stored. ne = [width, rows].
    ggml_tensor* table(const std::string& name, std::vector<int64_t> shape);
    // Bias, norm weight or modulation table, always F32; `plus` is added to every element.
    ggml_tensor* vector(const std::string& name, std::vector<int64_t> shape, float plus = 0);
    // A weight whose elements change places on load: `order` lists the axes of the new layout, slowest first, with
    // their strides in the stored one.
    ggml_tensor* permuted(const std::string& name, std::vector<int64_t> shape, ggml_type type, std::vector<int64_t> ne,
                          std::vector<Axis> order);
    // A weight of which something is computed on load, always F32: `fill` gets the stored values and writes the new
    // ones.
    using Fill = std::function<void(const float* stored, float* laid_out)>;
    ggml_tensor* laid_out(const std::string& name, std::vector<int64_t> shape, std::vector<int64_t> ne, Fill fill);

    // The stored type of a weight; GGML_TYPE_F32 when it is missing (load() will tell).
    ggml_type stored_type(const std::string& name) const;
    // Values of a small weight that the host needs, F32; filled by load().
    std::shared_ptr<const std::vector<float>> host(const std::string& name, std::vector<int64_t> shape);

    // What is wrong with the declarations: missing, misshapen, duplicate or unreadable tensors, one line each.
    std::vector<std::string> problems() const;
    // Maps, converts and uploads, once; later calls do nothing. Call check_weights() first. Throws
    // Error(out_of_memory); after an error nothing is held.
    void load(const Progress& progress);
    bool loaded() const { return loaded_; }
    // Gives back what load() took.
    void release();

    int64_t size() const { return static_cast<int64_t>(declared_.size()); }
    bool exact() const { return backend_.exact(); }
    // Bytes that this object allocated; mapped weights stay in the file cache.
    size_t memory() const;

 private:
    struct Declared {
        std::string name;
        std::vector<int64_t> shape;
        const TensorInfo* info = nullptr;            // null when missing
        ggml_tensor* tensor = nullptr;               // null for host weights
        std::shared_ptr<std::vector<float>> values;  // of host weights
        bool in_place = false;                       // the device uses the bytes of the mapped file
        float plus = 0;
        std::vector<Axis> order;  // when elements change places
        Fill fill;
    };

    ggml_tensor* declare(const std::string& name, std::vector<int64_t> shape, ggml_type type, std::vector<int64_t> ne,
                         Declared how);
    std::string problem(const Declared& d) const;
    ggml_backend_buffer_t buffer_over(const ModelFile& file);
    void convert_all(const Progress& progress) const;
    void convert(const Declared& d) const;

    const ModelFiles& files_;
    const Backend& backend_;
    std::string component_, prefix_;
    TensorArena owned_tensors_, mapped_tensors_;
    std::vector<Declared> declared_;
    std::vector<std::pair<const ModelFile*, Buffer>> mapped_;
    std::vector<Buffer> owned_;
    bool loaded_ = false;
};

// Throws Error(model_mismatch) that lists every problem of every network.
void check_weights(const std::vector<Weights*>& networks);

// A whole stored tensor as F32. Throws Error(model_mismatch) for a type that ggml does not read.
Array to_float(const TensorInfo& info);

}  // namespace sdltx
