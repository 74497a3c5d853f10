// sdltx._core.ops: arrays in, one op builder, arrays out. Shapes in NumPy order; channels are the last axis.
#include <numeric>

#include "bindings.h"
#include "ggml/ops.h"
#include "ggml/workspace.h"

namespace py = pybind11;
using namespace py::literals;

namespace sdltx {

namespace {

ggml_tensor* input(Plan& g, const char* name, const Array& a) {
    int64_t ne[4] = {1, 1, 1, 1};
    for (size_t i = 0; i < a.shape.size(); ++i) ne[i] = a.shape[a.shape.size() - 1 - i];
    switch (a.shape.size()) {
        case 1:
            return g.input(name, GGML_TYPE_F32, {ne[0]});
        case 2:
            return g.input(name, GGML_TYPE_F32, {ne[0], ne[1]});
        case 3:
            return g.input(name, GGML_TYPE_F32, {ne[0], ne[1], ne[2]});
        default:
            return g.input(name, GGML_TYPE_F32, {ne[0], ne[1], ne[2], ne[3]});
    }
}

Array result(const Plan& g, const ggml_tensor* out) {
    return {{out->ne[3], out->ne[2], out->ne[1], out->ne[0]}, g.get(out)};
}

size_t memory_of(Workspace& workspace, Plan& g) {
    const std::vector<size_t> working = workspace.measure(g);
    return std::accumulate(working.begin(), working.end(), g.inputs().size());
}

TimePadding time_padding(const std::string& name) {
    if (name == "causal") return TimePadding::causal;
    if (name == "replicate") return TimePadding::replicate;
    if (name == "causal_zeros") return TimePadding::causal_zeros;
    throw Error(ErrorCode::invalid_request, "[ops] padding '" + name + "' is unknown");
}

// One op over plain arrays: `build` gets the inputs in the order given.
template <typename Build>
py::array_t<float> run(bool exact, const std::vector<Array>& arrays, Build build) {
    const Backend backend("cpu", exact, 0);
    Workspace workspace(backend);
    Plan g(backend, "op", nullptr);
    std::vector<ggml_tensor*> inputs;
    for (auto& a : arrays) inputs.push_back(a.empty() ? nullptr : input(g, "input", a));
    ggml_tensor* out = g.output(build(g, inputs), "output");
    for (size_t i = 0; i < arrays.size(); ++i)
        if (inputs[i]) g.set(inputs[i], arrays[i].data);
    workspace.run(g);
    return to_numpy(result(g, out));
}

}  // namespace

void bind_ops(py::module_& module) {
    py::module_ m = module.def_submodule("ops");
    // Kernel name.weight (out, in, kt, kh, kw) and name.bias of a model file; x (F, H, W, C).
    m.def(
        "conv3d",
        [](const std::string& path, const std::string& name, const FloatArray& x, int64_t out,
           std::array<int, 3> kernel, const std::string& time, int64_t piece_bytes, bool exact, bool bias) {
            const ModelFiles files({path});
            const Backend backend("cpu", exact, 0);
            Weights weights(files, backend, "op", "");
            const Array a = to_array(x);
            const Conv3d c = declare_conv3d(weights, name, a.dim(3), out, kernel, {}, false, bias);
            check_weights({&weights});
            weights.acquire({});
            Workspace workspace(backend);
            Plan g(backend, "op", nullptr);
            ggml_tensor* in = input(g, "x", a);
            ggml_tensor* y = g.output(conv3d(g, c, in, time_padding(time), nullptr, piece_bytes), "output");
            g.set(in, a.data);
            workspace.run(g);
            return py::make_tuple(to_numpy(result(g, y)), memory_of(workspace, g));
        },
        "path"_a, "name"_a, "x"_a, "out"_a, "kernel"_a, py::kw_only(), "time"_a = "replicate", "piece_bytes"_a = 0,
        "exact"_a = false, "bias"_a = true);
    // q (T, H, D), k and v (S, Hkv, D), mask (T, S) or None -> (1, T, H, D)
    m.def(
        "attention",
        [](const FloatArray& q, const FloatArray& k, const FloatArray& v, const std::optional<FloatArray>& mask,
           float scale, bool exact) {
            return run(exact, {to_array(q), to_array(k), to_array(v), to_array(mask)}, [&](Plan& g, const auto& in) {
                ggml_tensor* m16 = in[3] ? ggml_cast(g.ctx(), in[3], GGML_TYPE_F16) : nullptr;
                return attention(g, in[0], in[1], in[2], m16, scale);
            });
        },
        "q"_a, "k"_a, "v"_a, "mask"_a = py::none(), py::kw_only(), "scale"_a, "exact"_a = false);
    m.def(
        "depth_to_space",
        [](const FloatArray& x, std::array<int, 3> stride) {
            return run(true, {to_array(x)}, [&](Plan& g, const auto& in) { return depth_to_space(g, in[0], stride); });
        },
        "x"_a, "stride"_a);
    m.def(
        "pad_width",
        [](const FloatArray& x, int64_t before, int64_t after) {
            return run(true, {to_array(x)},
                       [&](Plan& g, const auto& in) { return pad_width(g, in[0], before, after); });
        },
        "x"_a, "before"_a, "after"_a);
    m.def(
        "modulate",
        [](const FloatArray& x, const FloatArray& scale1, const FloatArray& shift) {
            return run(true, {to_array(x), to_array(scale1), to_array(shift)},
                       [&](Plan& g, const auto& in) { return modulate(g, in[0], in[1], in[2]); });
        },
        "x"_a, "scale1"_a, "shift"_a);
    m.def(
        "rms_norm",
        [](const FloatArray& x, const std::optional<FloatArray>& w, float eps) {
            return run(true, {to_array(x), to_array(w)},
                       [&](Plan& g, const auto& in) { return rms_norm(g, in[0], in[1], eps); });
        },
        "x"_a, "w"_a = py::none(), py::kw_only(), "eps"_a);
    m.def(
        "gelu_tanh",
        [](const FloatArray& x, bool exact) {
            return run(exact, {to_array(x)}, [&](Plan& g, const auto& in) { return gelu_tanh(g, in[0]); });
        },
        "x"_a, py::kw_only(), "exact"_a = true);
    // What a failed assertion of ggml does to the process.
    m.def("abort", [](const std::string& message) {
        const Backend backend("cpu", false, 1);
        GGML_ABORT("%s", message.c_str());
    });
    m.def(
        "rotate_half",
        [](const FloatArray& x, const FloatArray& cos, const FloatArray& sin) {
            return run(true, {to_array(x), to_array(cos), to_array(sin)},
                       [&](Plan& g, const auto& in) { return rotate_half(g, in[0], in[1], in[2]); });
        },
        "x"_a, "cos"_a, "sin"_a);
}

}  // namespace sdltx
