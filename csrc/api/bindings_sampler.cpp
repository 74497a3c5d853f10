// Denoising loops step by step, and single calls of the transformer, for tests.
#include <numeric>

#include "bindings.h"
#include "bindings_guard.h"
#include "clip/pipeline.h"

namespace py = pybind11;
using namespace py::literals;

namespace sdltx {

namespace {

// The inputs of one stream of velocity(), kept alive for the call.
struct StreamArguments {
    std::vector<float> tokens, timesteps;
    Positions positions;
    Array context;
    Pipeline::VelocityInput input;

    StreamArguments(const py::dict& d, float sigma) {
        const Array t = to_array(d["tokens"].cast<FloatArray>()), p = to_array(d["positions"].cast<FloatArray>()),
                    s = to_array(d["timesteps"].cast<FloatArray>());
        context = to_array(d["context"].cast<FloatArray>());
        if (t.shape.size() != 2 || p.shape.size() != 3 || p.dim(1) != t.dim(0) || p.dim(2) != 2 ||
            static_cast<int64_t>(s.data.size()) != t.dim(0) || context.shape.size() != 2)
            throw Error(
                ErrorCode::invalid_request,
                "[velocity] a stream takes tokens (T, C), timesteps (T), positions (axes, T, 2) and context (rows, D)");
        tokens = t.data;
        timesteps = s.data;
        positions = {p.dim(0), p.dim(1), p.data};
        if (d.contains("marked")) positions.marked = d["marked"].cast<std::vector<bool>>();
        if (d.contains("sigma")) sigma = d["sigma"].cast<float>();
        input = {{&tokens, &timesteps, sigma}, &positions, &context};
    }
};

// A sampling loop that owns its context.
struct PySampler {
    Context context;
    std::optional<Context> negative;
    std::unique_ptr<Sampler> loop;
    Pipeline* pipeline;
};

py::array_t<float> tokens_of(const StreamState& s) { return to_numpy({s.num_tokens, s.channels}, s.latent); }

py::dict state_of(const StreamState& s) {
    py::list bias;
    if (!s.groups.empty()) {
        const TokenBias all = bias_of(s.groups, s.num_tokens);
        for (int64_t i = 0; i < s.num_tokens; ++i) bias.append(to_numpy({s.num_tokens}, mask_row(all, i)));
    }
    return py::dict("clean"_a = to_numpy({s.num_tokens, s.channels}, s.clean),
                    "mask"_a = to_numpy({s.num_tokens}, s.mask),
                    "positions"_a = to_numpy({s.positions.axes, s.num_tokens, 2}, s.positions.bounds), "bias"_a = bias);
}

// What a stream starts from, by the names of Spec: tests name all of it.
Spec spec_of(const py::dict& given) {
    Spec spec;
    const auto array = [&](const char* name) {
        return given.contains(name) ? to_array(given[name].cast<FloatArray>()) : Array{};
    };
    spec.initial = array("initial");
    spec.sound_before = array("sound_before");
    spec.frozen = given.contains("frozen") && given["frozen"].cast<bool>();
    using KeptTuple = std::tuple<FloatArray, int64_t, float, std::optional<FloatArray>>;
    if (given.contains("kept"))
        for (const auto& [latent, first, strength, weight] : given["kept"].cast<std::vector<KeptTuple>>())
            spec.kept.push_back({to_array(latent), first, strength, to_array(weight)});
    if (given.contains("keyframes"))
        for (const auto& [latent, frame, strength] :
             given["keyframes"].cast<std::vector<std::tuple<FloatArray, int64_t, float>>>())
            spec.keyframes.push_back({to_array(latent), frame, strength});
    using ReferenceTuple = std::tuple<FloatArray, int64_t, int64_t, float, std::optional<std::vector<float>>>;
    if (given.contains("references"))
        for (const auto& [latent, downscale, temporal, strength, attention] :
             given["references"].cast<std::vector<ReferenceTuple>>())
            spec.references.push_back({to_array(latent), downscale, temporal, strength, attention});
    return spec;
}

// What attention_of() makes of a mask, for tests.
std::vector<float> attention_of_mask(const py::array_t<uint8_t, py::array::c_style>& mask, double attention,
                                     int64_t width, int64_t height, std::array<int64_t, 3> cells) {
    Request::Reference reference;
    reference.attention = {mask.shape(0), mask.shape(1), mask.shape(2), {mask.data(), mask.data() + mask.size()}};
    std::vector<int64_t> frames(static_cast<size_t>(8 * (cells[0] - 1) + 1));
    std::iota(frames.begin(), frames.end(), 0);
    return *attention_of(reference, frames, attention, width, height, cells);
}

}  // namespace

namespace {

Frames bytes_of(const py::array_t<uint8_t, py::array::c_style | py::array::forcecast>& rgb) {
    return {rgb.shape(0), rgb.shape(1), rgb.shape(2), {rgb.data(), rgb.data() + rgb.size()}};
}

py::array_t<uint8_t> to_numpy(const Frames& f) {
    return py::array_t<uint8_t>(std::vector<int64_t>{f.num_frames, f.height, f.width, 3}, f.data.data());
}

// The bookkeeping of an extension alone, for tests of its clock.
void bind_extension(py::module_& m) {
    using Bytes = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>;
    const auto told = [](const Waveform& w) {
        return w.samples.empty() ? py::object(py::none()) : py::object(sdltx::to_numpy(w.samples));
    };
    const auto kept = [](const Kept& k) { return py::make_tuple(sdltx::to_numpy(k.latent), k.first); };
    py::class_<Extension>(m, "Extension")
        .def(py::init([](const Bytes& film, const std::optional<FloatArray>& sound, int rate, double frame_rate,
                         bool before, int64_t context, int64_t wanted, int64_t window, int64_t audio_frames) {
                 return Extension({before, context, wanted, window}, bytes_of(film), {to_array(sound), rate},
                                  frame_rate, audio_frames);
             }),
             "film"_a, "sound"_a, "rate"_a, "frame_rate"_a, "before"_a, "context"_a, "wanted"_a, "window"_a,
             "audio_frames"_a)
        .def_property_readonly("done", &Extension::done)
        .def_property_readonly("pictures", [](const Extension& e) { return to_numpy(e.pictures()); })
        .def_property_readonly("sound", [=](const Extension& e) { return told(e.sound()); })
        .def(
            "kept", [=](const Extension& e, const FloatArray& latents) { return kept(e.kept(to_array(latents))); },
            "latents"_a)
        .def(
            "kept_sound",
            [=](const Extension& e, const FloatArray& latents) { return kept(e.kept_sound(to_array(latents))); },
            "latents"_a)
        .def(
            "add",
            [](Extension& e, const Bytes& window, const FloatArray& made, int rate) {
                e.add(bytes_of(window), {to_array(made), rate});
            },
            "window"_a, "made"_a, "rate"_a)
        .def_property_readonly("film", [](const Extension& e) { return to_numpy(e.film()); })
        .def_property_readonly("whole_sound", [=](const Extension& e) { return told(e.whole_sound()); });
}

}  // namespace

void bind_sampler(py::module_& m, py::class_<Pipeline>& pipeline) {
    bind_extension(m);
    py::class_<PySampler>(m, "Sampler")
        .def("step", [](PySampler& s) { Guard(std::nullopt).run(s.pipeline, [&] { s.pipeline->step(*s.loop); }); })
        .def_property_readonly("index", [](const PySampler& s) { return s.loop->index(); })
        .def_property_readonly("num_steps", [](const PySampler& s) { return s.loop->num_steps(); })
        .def_property_readonly("state",
                               [](const PySampler& s) {
                                   const SampleState& state = s.loop->state();
                                   return py::make_tuple(state_of(state.video), state_of(state.audio));
                               })
        .def_property_readonly("video", [](const PySampler& s) { return tokens_of(s.loop->state().video); })
        .def_property_readonly("audio", [](const PySampler& s) { return tokens_of(s.loop->state().audio); })
        .def_property_readonly("video_denoised",
                               [](const PySampler& s) {
                                   const StreamState& v = s.loop->state().video;
                                   return to_numpy({v.num_tokens, v.channels}, s.loop->denoised().video);
                               })
        .def_property_readonly("audio_denoised", [](const PySampler& s) {
            const StreamState& a = s.loop->state().audio;
            return to_numpy({a.num_tokens, a.channels}, s.loop->denoised().audio);
        });
    m.def("attention_of_mask", &attention_of_mask, "mask"_a, "attention"_a, "width"_a, "height"_a, "cells"_a);
    pipeline
        .def(
            "sampler",
            [](Pipeline& p, const FloatArray& video_context, const FloatArray& audio_context, const ClipOptions& o,
               const std::optional<FloatArray>& video_noise, const std::optional<FloatArray>& audio_noise,
               const std::optional<FloatPair>& negative, const std::vector<ConditionTuple>& conditions,
               const std::optional<LatentPair>& initial, const std::optional<py::function>& step_noise,
               const py::dict& video_spec, const py::dict& audio_spec, const std::vector<LoraPair>& loras) {
                auto s = std::make_unique<PySampler>();
                DrawNoise draw;
                if (step_noise)
                    draw = [given = *step_noise](const NoiseRequest& r) {
                        const WithGil gil;
                        return to_array(given(r.video, r.step, r.kind, r.count).cast<FloatArray>()).data;
                    };
                s->context = {to_array(video_context), to_array(audio_context)};
                s->negative = context_of(negative);
                s->pipeline = &p;
                Pipeline::Inputs inputs{spec_of(video_spec), spec_of(audio_spec), conditions_of(conditions),
                                        loras_of(loras), draw};
                if (video_noise) inputs.video.noise = to_array(video_noise);
                if (audio_noise) inputs.audio.noise = to_array(audio_noise);
                if (initial) {
                    const Latents given = latents_of(initial);
                    inputs.video.initial = given.video;
                    inputs.audio.initial = given.audio;
                }
                s->loop = p.sampler(s->context, s->negative ? &*s->negative : nullptr, p.resolve({o, {}, {}, {}}).whole,
                                    inputs);
                return s;
            },
            "video_context"_a, "audio_context"_a, "options"_a, py::kw_only(), "video_noise"_a = py::none(),
            "audio_noise"_a = py::none(), "negative"_a = py::none(), "conditions"_a = py::list(),
            "initial"_a = py::none(), "step_noise"_a = py::none(), "video"_a = py::dict(), "audio"_a = py::dict(),
            "loras"_a = std::vector<LoraPair>{}, py::keep_alive<0, 1>())
        .def(
            "velocity",
            [](Pipeline& p, const py::dict& video, std::optional<py::dict> audio, float sigma,
               std::vector<int> skip_video, std::vector<int> skip_audio, bool isolated,
               const std::vector<LoraPair>& loras) {
                const StreamArguments v(video, sigma);
                std::optional<StreamArguments> a;
                if (audio) a.emplace(*audio, sigma);
                const Velocity out = Guard(std::nullopt).run(&p, [&] {
                    return p.velocity(v.input, a ? &a->input : nullptr, {skip_video, skip_audio, isolated},
                                      loras_of(loras));
                });
                const int64_t channels = static_cast<int64_t>(v.tokens.size()) / v.positions.tokens;
                py::object sound = py::none();
                if (a)
                    sound = to_numpy(
                        {a->positions.tokens, static_cast<int64_t>(a->tokens.size()) / a->positions.tokens}, out.audio);
                return py::make_tuple(to_numpy({v.positions.tokens, channels}, out.video), sound);
            },
            "video"_a, "audio"_a, py::kw_only(), "sigma"_a, "skip_video_self_attn"_a = std::vector<int>{},
            "skip_audio_self_attn"_a = std::vector<int>{}, "skip_cross_modal"_a = false,
            "loras"_a = std::vector<LoraPair>{});
}

}  // namespace sdltx
