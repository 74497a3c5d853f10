#include "weights.h"

#include <algorithm>
#include <cstring>

namespace sdltx {

namespace {

constexpr size_t max_tensors = 1 << 14;
constexpr size_t max_reported = 20;

std::string spell(const std::vector<int64_t>& shape) {
    std::string s = "(";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + ")";
}

int64_t count(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
}

bool readable(ggml_type type) {
    return type == GGML_TYPE_F32 || (type < GGML_TYPE_COUNT && ggml_get_type_traits(type)->to_float);
}

// ggml reads 16-bit halves and floats in place; a file may have them at any byte.
bool aligned(const TensorInfo& info) {
    const size_t unit = info.type == GGML_TYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    return reinterpret_cast<uintptr_t>(info.data) % unit == 0;
}

// The shape without axes of size 1: files differ in whether they keep those of a vector or a 1x1 kernel.
std::vector<int64_t> squeezed(std::vector<int64_t> shape) {
    shape.erase(std::remove(shape.begin(), shape.end(), 1), shape.end());
    return shape;
}

}  // namespace

Array to_float(const TensorInfo& info) {
    if (!readable(info.type))
        throw Error(ErrorCode::model_mismatch,
                    "[" + info.file->path() + "] '" + info.stored_name + "' has the unsupported type " + info.dtype);
    Array a{info.shape, std::vector<float>(static_cast<size_t>(count(info.shape)))};
    if (info.type == GGML_TYPE_F32)
        std::memcpy(a.data.data(), info.data, info.nbytes);
    else
        ggml_get_type_traits(info.type)->to_float(info.data, a.data.data(), count(info.shape));
    return a;
}

Weights::Weights(const ModelFiles& files, const Backend& backend, std::string component, std::string prefix)
    : files_(files), backend_(backend), component_(std::move(component)), prefix_(std::move(prefix)) {
    ctx_ = make_tensor_context(max_tensors);
    mapped_ctx_ = make_tensor_context(max_tensors);
}

ggml_type Weights::stored_type(const std::string& name) const {
    const TensorInfo* info = files_.find(prefix_ + name);
    return info && info->type < GGML_TYPE_COUNT ? info->type : GGML_TYPE_F32;
}

ggml_tensor* Weights::declare(const std::string& name, std::vector<int64_t> shape, ggml_type type,
                              std::vector<int64_t> ne, float plus, Fill fill) {
    const TensorInfo* info = files_.find(prefix_ + name);
    const bool in_place = info && info->type == type && !fill && plus == 0 && backend_.is_cpu() && aligned(*info);
    ggml_tensor* t =
        ggml_new_tensor(in_place ? mapped_ctx_.get() : ctx_.get(), type, static_cast<int>(ne.size()), ne.data());
    ggml_set_name(t, (prefix_ + name).c_str());
    declared_.push_back({prefix_ + name, std::move(shape), info, t, nullptr, in_place, plus, std::move(fill)});
    return t;
}

std::shared_ptr<const std::vector<float>> Weights::host(const std::string& name, std::vector<int64_t> shape) {
    auto values = std::make_shared<std::vector<float>>();
    declared_.push_back(
        {prefix_ + name, std::move(shape), files_.find(prefix_ + name), nullptr, values, false, 0, nullptr});
    return values;
}

ggml_tensor* Weights::matrix(const std::string& name, std::vector<int64_t> shape) {
    ggml_type type = stored_type(name);
    const bool whole_rows = type < GGML_TYPE_COUNT && shape.back() % ggml_blck_size(type) == 0;
    if (backend_.exact() || !readable(type) || !whole_rows) type = GGML_TYPE_F32;
    std::vector<int64_t> ne(shape.rbegin(), shape.rend());
    return declare(name, std::move(shape), type, std::move(ne), 0, nullptr);
}

ggml_tensor* Weights::table(const std::string& name, std::vector<int64_t> shape) {
    return matrix(name, std::move(shape));
}

ggml_tensor* Weights::vector(const std::string& name, std::vector<int64_t> shape, float plus) {
    std::vector<int64_t> ne(shape.rbegin(), shape.rend());
    return declare(name, std::move(shape), GGML_TYPE_F32, std::move(ne), plus, nullptr);
}

ggml_tensor* Weights::laid_out(const std::string& name, std::vector<int64_t> shape, ggml_type type,
                               std::vector<int64_t> ne, Fill fill) {
    return declare(name, std::move(shape), type, std::move(ne), 0, std::move(fill));
}

std::string Weights::problem(const Declared& d) const {
    if (!d.info) return "missing " + d.name + " " + spell(d.shape);
    if (auto* two = files_.duplicate(d.name))
        return "duplicate " + d.name + " in " + two->first + " and " + two->second;
    if (squeezed(d.info->shape) != squeezed(d.shape))
        return "misshapen " + d.name + ": expected " + spell(d.shape) + ", the file has " + spell(d.info->shape);
    if (!readable(d.info->type)) return "unsupported type " + d.info->dtype + " of " + d.name;
    return "";
}

std::vector<std::string> Weights::problems() const {
    std::vector<std::string> out;
    for (auto& d : declared_)
        if (std::string p = problem(d); !p.empty()) out.push_back("[" + component_ + "] " + p);
    return out;
}

void check_weights(const std::vector<Weights*>& networks) {
    std::vector<std::string> problems;
    for (auto* w : networks)
        for (auto& p : w->problems()) problems.push_back(std::move(p));
    if (problems.empty()) return;
    std::string text = "[load] the files do not make up the model: ";
    for (size_t i = 0; i < std::min(problems.size(), max_reported); ++i) text += (i ? "; " : "") + problems[i];
    if (problems.size() > max_reported) text += "; and " + std::to_string(problems.size() - max_reported) + " more";
    throw Error(ErrorCode::model_mismatch, text);
}

void Weights::load(const Progress& progress) {
    for (auto& d : declared_)
        if (d.in_place && ggml_backend_tensor_alloc(buffer_over(*d.info->file), d.tensor,
                                                    const_cast<uint8_t*>(d.info->data)) != GGML_STATUS_SUCCESS)
            throw Error(ErrorCode::backend,
                        "[" + component_ + "] the device does not take " + d.name + " from the file");
    owned_ = backend_.allocate(ctx_.get(), component_);
    if (owned_) ggml_backend_buffer_set_usage(owned_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    const int64_t total = static_cast<int64_t>(declared_.size());
    for (int64_t i = 0; i < total; ++i) {
        if (i % 64 == 0) report(progress, "load", i, total);
        if (const Declared& d = declared_[static_cast<size_t>(i)]; !d.in_place) convert(d);
    }
    report(progress, "load", total, total);
}

ggml_backend_buffer_t Weights::buffer_over(const ModelFile& file) {
    for (auto& [mapped, buffer] : mapped_)
        if (mapped == &file) return buffer.get();
    Buffer buffer = backend_.map_host_memory(file.map().data(), file.map().size());
    if (!buffer)
        throw Error(ErrorCode::backend, "[" + component_ + "] the device cannot use " + file.path() + " in place");
    ggml_backend_buffer_set_usage(buffer.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return mapped_.emplace_back(&file, std::move(buffer)).second.get();
}

void Weights::convert(const Declared& d) const {
    if (d.tensor && !d.fill && d.plus == 0 && d.info->type == d.tensor->type) {
        ggml_backend_tensor_set(d.tensor, d.info->data, 0, d.info->nbytes);
        return;
    }
    std::vector<float> values = std::move(to_float(*d.info).data);
    if (d.values) {
        *d.values = std::move(values);
        return;
    }
    if (d.fill) {
        std::vector<float> laid_out(static_cast<size_t>(ggml_nelements(d.tensor)));
        d.fill(values.data(), laid_out.data());
        values.swap(laid_out);
    }
    for (float& v : values) v += d.plus;
    if (d.tensor->type == GGML_TYPE_F32) {
        ggml_backend_tensor_set(d.tensor, values.data(), 0, values.size() * sizeof(float));
        return;
    }
    std::vector<uint8_t> bytes(ggml_nbytes(d.tensor));
    ggml_get_type_traits(d.tensor->type)
        ->from_float_ref(values.data(), bytes.data(), static_cast<int64_t>(values.size()));
    ggml_backend_tensor_set(d.tensor, bytes.data(), 0, bytes.size());
}

size_t Weights::memory() const { return owned_ ? ggml_backend_buffer_get_size(owned_.get()) : 0; }

}  // namespace sdltx
