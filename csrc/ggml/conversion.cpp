#include "conversion.h"

#include <algorithm>
#include <memory>

#include "encodings.h"
#include "ggml-backend.h"
#include "values.h"

namespace sdltx {

namespace {

// Writes the elements of `from` in the order of `axes`. The innermost axis is written in one go; the others are walked
// so that reading stays local.
template <typename T>
void permute(const T* from, T* to, const std::vector<Axis>& axes) {
    struct Step {
        int64_t length, from, to;
    };
    std::vector<Step> steps;
    int64_t stride = 1;
    for (size_t i = axes.size(); i-- > 0;) {
        steps.insert(steps.begin(), {axes[i].length, axes[i].stride, stride});
        stride *= axes[i].length;
    }
    std::stable_sort(steps.begin(), steps.end() - 1, [](auto& a, auto& b) { return a.from > b.from; });
    const auto walk = [&](const auto& self, size_t axis, const T* source, T* target) -> void {
        const Step& s = steps[axis];
        if (axis + 1 == steps.size()) {
            for (int64_t i = 0; i < s.length; ++i) target[i] = source[i * s.from];
            return;
        }
        for (int64_t i = 0; i < s.length; ++i) self(self, axis + 1, source + i * s.from, target + i * s.to);
    };
    walk(walk, 0, from, to);
}

void permute(const void* from, void* to, size_t element, const std::vector<Axis>& axes) {
    if (element == sizeof(uint16_t))
        permute(static_cast<const uint16_t*>(from), static_cast<uint16_t*>(to), axes);
    else
        permute(static_cast<const uint32_t*>(from), static_cast<uint32_t*>(to), axes);
}

// Values as they are stored, in a type of ggml's; `copy` holds them if they cannot be read where they are.
struct Stored {
    const void* data;
    ggml_type type;
};

Stored stored_values(const TensorInfo& info, std::vector<uint8_t>& copy) {
    const int64_t n = info.elements();
    if (info.encoding != Encoding::none) {
        copy.resize(static_cast<size_t>(n) * sizeof(float));
        convert_values(info, copy.data(), GGML_TYPE_F32, n);
        return {copy.data(), GGML_TYPE_F32};
    }
    if (aligned(info)) return {info.data, info.type};
    copy.assign(info.data, info.data + info.nbytes);
    return {copy.data(), info.type};
}

std::vector<float> floats(const Stored& stored, int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    convert_values(stored.data, stored.type, values.data(), GGML_TYPE_F32, n);
    return values;
}

void reorder(const Stored& stored, int64_t n, const std::vector<Axis>& order, void* to, ggml_type as) {
    // Elements of a block type lie alone only once they are floats.
    const ggml_type type = ggml_blck_size(stored.type) == 1 ? stored.type : GGML_TYPE_F32;
    const std::vector<float> values = type == stored.type ? std::vector<float>{} : floats(stored, n);
    const void* from = type == stored.type ? stored.data : values.data();
    if (type == as) {
        permute(from, to, ggml_type_size(type), order);
        return;
    }
    std::vector<uint8_t> moved(static_cast<size_t>(n) * ggml_type_size(type));
    permute(from, moved.data(), ggml_type_size(type), order);
    convert_values(moved.data(), type, to, as, n);
}

void write(const TensorInfo& info, const Layout& layout, void* to, ggml_type as) {
    const int64_t n = info.elements();
    std::vector<uint8_t> copy;
    if (!layout.order.empty()) {
        reorder(stored_values(info, copy), n, layout.order, to, as);
    } else if (layout.fill) {
        layout.fill(floats(stored_values(info, copy), n).data(), static_cast<float*>(to));
    } else if (layout.packed) {
        pack(info, to);
    } else if (info.encoding != Encoding::none) {
        convert_values(info, to, as, n);
    } else {
        const Stored stored = stored_values(info, copy);
        convert_values(stored.data, stored.type, to, as, n);
    }
    if (layout.plus != 0)
        for (int64_t i = 0; i < n; ++i) static_cast<float*>(to)[i] += layout.plus;
}

}  // namespace

bool aligned(const TensorInfo& info) {
    const size_t unit = info.type == GGML_TYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    return reinterpret_cast<uintptr_t>(info.data) % unit == 0;
}

void convert(const TensorInfo& info, const Layout& layout, ggml_tensor* to, Uploads& uploads) {
    const MappedFile& file = info.file->map();
    file.will_need(info.data, info.nbytes);
    if (ggml_backend_buffer_is_host(to->buffer)) {
        write(info, layout, to->data, to->type);
    } else if (layout.as_stored() && info.encoding == Encoding::none && info.type == to->type) {
        check_mapped(info.data, info.nbytes);
        uploads.upload(to, info.data);
    } else {
        const std::unique_ptr<uint8_t[]> values(new uint8_t[ggml_nbytes(to)]);  // not zeroed first
        write(info, layout, values.get(), to->type);
        uploads.upload(to, values.get());
    }
    check_mapped(info.data);
    file.forget(info.data, info.nbytes);
}

std::vector<float> floats_of(const TensorInfo& info) {
    const MappedFile& file = info.file->map();
    file.will_need(info.data, info.nbytes);
    std::vector<uint8_t> copy;
    std::vector<float> values = floats(stored_values(info, copy), info.elements());
    check_mapped(info.data);
    file.forget(info.data, info.nbytes);
    return values;
}

}  // namespace sdltx
