// What the files of the Python extension share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/types.h"
#include "clip/plan.h"
#include "ltxv/tiling.h"

namespace sdltx {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>;

inline Array to_array(const FloatArray& a) {
    return {{a.shape(), a.shape() + a.ndim()}, {a.data(), a.data() + a.size()}};
}
inline Array to_array(const std::optional<FloatArray>& a) { return a ? to_array(*a) : Array{}; }

inline pybind11::array_t<float> to_numpy(const std::vector<int64_t>& shape, const std::vector<float>& data) {
    return pybind11::array_t<float>(shape, data.data());
}
inline pybind11::array_t<float> to_numpy(const Array& a) { return to_numpy(a.shape, a.data); }

// Text of a file, which may not be UTF-8.
inline pybind11::str decoded(const std::string& s) {
    return pybind11::reinterpret_steal<pybind11::str>(
        PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "replace"));
}

// ClipOptions, presets and tiles.
void bind_options(pybind11::module_& m);
// Dictionaries, lists, texts and numbers.
pybind11::object to_python(const Json& json);
// Path and strength each.
using LoraPair = std::pair<std::string, float>;
std::vector<LoraFile> loras_of(const std::vector<LoraPair>& pairs);
// Null: the defaults.
Tiling tiling_of(const std::optional<std::array<int64_t, 4>>& numbers);
// Model files without a model.
void bind_files(pybind11::module_& m);
// sdltx._core.ops: the op builders one at a time, for their tests.
void bind_ops(pybind11::module_& m);

}  // namespace sdltx
