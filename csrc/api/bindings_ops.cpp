// sdltx._core.ops: see ggml/single_op.h.
#include "bindings.h"
#include "gemma/writing.h"
#include "ggml/single_op.h"
#include "ltxv/mel.h"
#include "ltxv/noise.h"
#include "ltxv/steppers.h"
#include "model/presets.h"

namespace py = pybind11;
using namespace py::literals;

namespace sdltx {

namespace {

StreamState stream_of(const FloatArray& latent, const FloatArray& clean, const FloatArray& mask) {
    StreamState s;
    s.num_tokens = latent.shape(0);
    s.channels = latent.shape(1);
    s.latent = to_array(latent).data;
    s.clean = to_array(clean).data;
    s.mask = to_array(mask).data;
    return s;
}

py::array_t<float> tokens(const StreamState& s) { return to_numpy({s.num_tokens, s.channels}, s.latent); }

// All steps of a sampler over estimates and noise that Python gives; the latents after each.
py::list run_sampler(const std::string& sampler, const std::vector<float>& sigmas, const std::vector<FloatArray>& video,
                     const std::vector<FloatArray>& audio, const py::function& denoise, const py::function& noise) {
    const SamplerKind kind = sampler_named(sampler);
    SampleState state{stream_of(video.at(0), video.at(1), video.at(2)),
                      stream_of(audio.at(0), audio.at(1), audio.at(2))};
    Stepper stepper(kind, [&](const NoiseRequest& r) {
        return to_array(noise(r.video, r.step, r.kind, r.count).cast<FloatArray>()).data;
    });
    const Denoise estimate = [&](const SampleState& at, float sigma, int64_t step) {
        const py::tuple x0 = denoise(tokens(at.video), tokens(at.audio), sigma, step);
        return Denoised{to_array(x0[0].cast<FloatArray>()).data, to_array(x0[1].cast<FloatArray>()).data};
    };
    const std::vector<float> levels = Stepper::levels(kind, sigmas);
    py::list results;
    for (size_t i = 0; i + 1 < levels.size(); ++i) {
        stepper.step(state, estimate, levels[i], levels[i + 1], static_cast<int64_t>(i));
        results.append(py::make_tuple(tokens(state.video), tokens(state.audio)));
    }
    return results;
}

}  // namespace

void bind_ops(py::module_& module) {
    py::module_ m = module.def_submodule("ops");
    m.def(
        "resample",
        [](const FloatArray& wave, int from, int to) { return to_numpy(resample(to_array(wave), from, to)); }, "wave"_a,
        "from_rate"_a, "to_rate"_a);
    m.def(
        "log_mel", [](const FloatArray& wave, int64_t bins) { return to_numpy(log_mel(to_array(wave), bins)); },
        "wave"_a, "bins"_a = 64);
    m.def(
        "drawn_token",
        [](const std::vector<float>& scores, double uniform) { return drawn_token(scores, Drawing{}, uniform); },
        "scores"_a, "uniform"_a);
    m.def(
        "uniform_noise", [](uint64_t seed, uint32_t step) { return uniform_noise(seed, NoiseStream::text, step); },
        "seed"_a, "step"_a);
    m.def("tidied", &tidied, "text"_a);
    m.def("set_device", &single_op::set_device, "device"_a);
    m.def("copy_seconds", &single_op::copy_seconds, "device"_a, "bytes"_a);
    m.def("set_runs", &single_op::set_runs, "runs"_a);
    m.def("seconds_of_runs", &single_op::seconds_of_runs);
    m.def("run_sampler", &run_sampler, "sampler"_a, "sigmas"_a, "video"_a, "audio"_a, "denoise"_a, "noise"_a);
    m.def(
        "conv3d",
        [](const std::string& path, const std::string& name, const FloatArray& x, int64_t out,
           std::array<int, 3> kernel, const std::string& time, int64_t piece_bytes, bool exact, bool bias,
           const std::string& lowering, bool reflect, const std::optional<FloatArray>& residual, int threads) {
            const auto r = single_op::conv3d(path, name, to_array(x), out, kernel, time, piece_bytes, exact, bias,
                                             lowering, reflect, to_array(residual), threads);
            return py::make_tuple(to_numpy(r.y), r.bytes);
        },
        "path"_a, "name"_a, "x"_a, "out"_a, "kernel"_a, py::kw_only(), "time"_a = "replicate", "piece_bytes"_a = 0,
        "exact"_a = false, "bias"_a = true, "lowering"_a = "own", "reflect"_a = false, "residual"_a = py::none(),
        "threads"_a = 0);
    m.def(
        "attention",
        [](const FloatArray& q, const FloatArray& k, const FloatArray& v, const std::optional<FloatArray>& mask,
           float scale, bool exact, const std::string& kernel, int64_t patience, int threads) {
            return to_numpy(single_op::attention(to_array(q), to_array(k), to_array(v), to_array(mask), scale, exact,
                                                 kernel, patience, threads));
        },
        "q"_a, "k"_a, "v"_a, "mask"_a = py::none(), py::kw_only(), "scale"_a, "exact"_a = false, "kernel"_a = "own",
        "patience"_a = 0, "threads"_a = 0);
    m.def(
        "biased_attention",
        [](const FloatArray& q, const FloatArray& k, const FloatArray& v, const FloatArray& rows,
           const std::vector<int32_t>& which, const FloatArray& own, int64_t count, float scale, bool exact,
           int64_t patience, int threads) {
            return to_numpy(single_op::attention(to_array(q), to_array(k), to_array(v),
                                                 {to_array(rows), to_array(own), which, count}, scale, exact, patience,
                                                 threads));
        },
        "q"_a, "k"_a, "v"_a, py::kw_only(), "rows"_a, "which"_a, "own"_a, "count"_a, "scale"_a, "exact"_a = false,
        "patience"_a = 0, "threads"_a = 0);
    m.def(
        "quantise",
        [](const FloatArray& rows, const std::string& type) {
            const std::vector<uint8_t> bytes = single_op::quantise(to_array(rows), type);
            return py::array_t<uint8_t>(static_cast<py::ssize_t>(bytes.size()), bytes.data());
        },
        "rows"_a, "type"_a);
    m.def(
        "linear",
        [](const std::string& type, const py::array_t<uint8_t, py::array::c_style>& w, int64_t outputs,
           const FloatArray& x, const std::optional<FloatArray>& bias, const std::optional<FloatArray>& scale,
           const std::optional<py::array_t<uint8_t, py::array::c_style>>& powers, const std::string& activation,
           bool exact, int64_t patience, int threads, bool own) {
            return to_numpy(
                single_op::linear({type,
                                   {w.data(), w.data() + w.size()},
                                   powers ? std::vector<uint8_t>(powers->data(), powers->data() + powers->size())
                                          : std::vector<uint8_t>(),
                                   outputs,
                                   to_array(x),
                                   to_array(bias),
                                   to_array(scale),
                                   activation,
                                   exact,
                                   patience,
                                   threads,
                                   own}));
        },
        "type"_a, "w"_a, "outputs"_a, "x"_a, "bias"_a = py::none(), "scale"_a = py::none(), py::kw_only(),
        "powers"_a = py::none(), "activation"_a = "none", "exact"_a = false, "patience"_a = 0, "threads"_a = 0,
        "own"_a = true);
    m.def(
        "depth_to_space",
        [](const FloatArray& x, std::array<int, 3> stride) {
            return to_numpy(single_op::depth_to_space(to_array(x), stride));
        },
        "x"_a, "stride"_a);
    m.def(
        "pad_width",
        [](const FloatArray& x, int64_t before, int64_t after) {
            return to_numpy(single_op::pad_width(to_array(x), before, after));
        },
        "x"_a, "before"_a, "after"_a);
    m.def(
        "modulate",
        [](const FloatArray& x, const FloatArray& scale1, const FloatArray& shift, const single_op::Runs& runs) {
            return to_numpy(single_op::modulate(to_array(x), to_array(scale1), to_array(shift), runs));
        },
        "x"_a, "scale1"_a, "shift"_a, "runs"_a);
    m.def(
        "gated_sum",
        [](const FloatArray& x, const FloatArray& y, const FloatArray& gate, const single_op::Runs& runs, int threads) {
            return to_numpy(single_op::gated_sum(to_array(x), to_array(y), to_array(gate), runs, threads));
        },
        "x"_a, "y"_a, "gate"_a, "runs"_a, py::kw_only(), "threads"_a = 0);
    m.def(
        "rms_norm",
        [](const FloatArray& x, const std::optional<FloatArray>& w, float eps) {
            return to_numpy(single_op::rms_norm(to_array(x), to_array(w), eps));
        },
        "x"_a, "w"_a = py::none(), py::kw_only(), "eps"_a);
    m.def(
        "normed_heads",
        [](const FloatArray& x, const FloatArray& w, int64_t head_dim, const std::optional<FloatArray>& cos,
           const std::optional<FloatArray>& sin, float eps, int threads) {
            return to_numpy(single_op::normed_heads(to_array(x), to_array(w), head_dim, to_array(cos), to_array(sin),
                                                    eps, threads));
        },
        "x"_a, "w"_a, "head_dim"_a, "cos"_a = py::none(), "sin"_a = py::none(), py::kw_only(), "eps"_a,
        "threads"_a = 0);
    m.def(
        "modulated_norm",
        [](const FloatArray& x, const FloatArray& scale1, const FloatArray& shift, const single_op::Runs& runs,
           float eps, int threads) {
            return to_numpy(
                single_op::modulated_norm(to_array(x), to_array(scale1), to_array(shift), runs, eps, threads));
        },
        "x"_a, "scale1"_a, "shift"_a, "runs"_a, py::kw_only(), "eps"_a, "threads"_a = 0);
    m.def(
        "gelu_tanh", [](const FloatArray& x, bool exact) { return to_numpy(single_op::gelu_tanh(to_array(x), exact)); },
        "x"_a, py::kw_only(), "exact"_a = true);
    m.def(
        "rotate_half",
        [](const FloatArray& x, const FloatArray& cos, const FloatArray& sin) {
            return to_numpy(single_op::rotate_half(to_array(x), to_array(cos), to_array(sin)));
        },
        "x"_a, "cos"_a, "sin"_a);
    m.def("stop_ends_all_pieces", &single_op::stop_ends_all_pieces, "device"_a);
    m.def("resident_after_advice", &single_op::resident_after_advice, "path"_a, "seconds"_a = 5.0);
    m.def("abort", &single_op::abort, "message"_a);
}

}  // namespace sdltx
