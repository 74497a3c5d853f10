// What the files of the Python extension share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <exception>
#include <optional>
#include <string>
#include <tuple>
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

// Video and audio context.
using FloatPair = std::pair<FloatArray, FloatArray>;
inline std::optional<Context> context_of(const std::optional<FloatPair>& arrays) {
    if (!arrays) return std::nullopt;
    return Context{to_array(arrays->first), to_array(arrays->second)};
}

// Video and audio latents, either may be None.
using LatentPair = std::pair<std::optional<FloatArray>, std::optional<FloatArray>>;
inline Latents latents_of(const std::optional<LatentPair>& given) {
    if (!given) return {};
    return {to_array(given->first), to_array(given->second), 0};
}

// (image (H, W, 3) or None, latent (C, 1, H', W') or None, frame, strength) each.
using ConditionTuple =
    std::tuple<std::optional<pybind11::array_t<uint8_t, pybind11::array::c_style | pybind11::array::forcecast>>,
               std::optional<FloatArray>, int64_t, float>;
inline std::vector<Condition> conditions_of(const std::vector<ConditionTuple>& given) {
    std::vector<Condition> out;
    for (const auto& [image, latent, frame, strength] : given) {
        Condition& c = out.emplace_back();
        if (image && image->ndim() == 3)
            c.image = {1, image->shape(0), image->shape(1), {image->data(), image->data() + image->size()}};
        if (latent) c.latent = to_array(*latent);
        c.frame = frame;
        c.strength = strength;
    }
    return out;
}

// What a request is made from: dictionaries by core_material() of Python's material.py, or None.
void give_material(Request& request, const pybind11::object& sound, const pybind11::object& film);

void give_references(Request& request, const pybind11::list& references);

// SdltxError and its kinds, and what becomes of exceptions.
void bind_errors(pybind11::module_& m);
// What `error` is in Python; it is not null.
pybind11::object exception_of(const std::exception_ptr& error);
// ClipOptions, presets and tiles.
void bind_options(pybind11::module_& m);
// Dictionaries, lists, texts and numbers.
pybind11::object to_python(const Json& json);
// Path and strength each.
using LoraPair = std::pair<std::string, float>;
std::vector<LoraFile> loras_of(const std::vector<LoraPair>& pairs);
// Null: the defaults.
Tiling tiling_of(const std::optional<std::array<int64_t, 4>>& numbers);
class Pipeline;
// Sampler, and Pipeline.sampler() and velocity().
void bind_sampler(pybind11::module_& m, pybind11::class_<Pipeline>& pipeline);
// Job, and Pipeline.run().
void bind_run(pybind11::module_& m, pybind11::class_<Pipeline>& pipeline);
// Model files without a model.
void bind_files(pybind11::module_& m);
// sdltx._core.ops: the op builders one at a time, for their tests.
void bind_ops(pybind11::module_& m);

}  // namespace sdltx
