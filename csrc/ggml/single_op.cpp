#include "single_op.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "attention.h"
#include "conv3d.h"
#include "linear.h"
#include "workspace.h"

namespace sdltx::single_op {

namespace {

ggml_tensor* input(Plan& g, const Array& a) {
    int64_t ne[4] = {1, 1, 1, 1};
    if (a.shape.size() > 4) throw Error(ErrorCode::invalid_request, "[ops] an array has more than 4 axes");
    for (size_t i = 0; i < a.shape.size(); ++i) ne[i] = a.shape[a.shape.size() - 1 - i];
    return g.input("input", GGML_TYPE_F32, {ne[0], ne[1], ne[2], ne[3]});
}

Array result(const Plan& g, const ggml_tensor* out) {
    return {{out->ne[3], out->ne[2], out->ne[1], out->ne[0]}, g.get(out)};
}

TimePadding time_padding(const std::string& name) {
    if (name == "causal") return TimePadding::causal;
    if (name == "replicate") return TimePadding::replicate;
    if (name == "causal_zeros") return TimePadding::causal_zeros;
    throw Error(ErrorCode::invalid_request, "[ops] padding '" + name + "' is unknown");
}

ConvLowering conv_lowering(const std::string& name) {
    if (name == "own") return ConvLowering::own;
    if (name == "windows") return ConvLowering::windows;
    if (name == "columns") return ConvLowering::columns;
    throw Error(ErrorCode::invalid_request, "[ops] lowering '" + name + "' is unknown");
}

thread_local std::string device = "cpu";
thread_local int runs = 1;
thread_local std::vector<double> seconds;

void run(Workspace& workspace, Plan& g, const ggml_tensor* out) {
    seconds.clear();
    for (int i = 0; i < runs; ++i) {
        const auto start = std::chrono::steady_clock::now();
        workspace.run(g);
        float first = 0;
        if (workspace.backend().remote()) g.get(out, 0, 1, &first);  // a worker says when it is ready only then
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
}

Backend backend_for(bool exact, int threads) { return Backend(device, exact && device == "cpu", threads); }

// `build` gets the inputs in the order given, null for empty ones.
template <typename Build>
Array run(bool exact, const std::vector<const Array*>& arrays, Build build, int64_t patience = 0, int threads = 0) {
    Backend backend = backend_for(exact, threads);
    if (patience) backend.set_patience(patience);
    Workspace workspace(backend);
    Plan g(backend, "op", nullptr);
    std::vector<ggml_tensor*> inputs;
    for (auto* a : arrays) inputs.push_back(a->empty() ? nullptr : input(g, *a));
    ggml_tensor* out = g.output(build(g, inputs), "output");
    for (size_t i = 0; i < arrays.size(); ++i)
        if (inputs[i]) g.set(inputs[i], arrays[i]->data);
    run(workspace, g, out);
    return result(g, out);
}

}  // namespace

void set_device(const std::string& name) { device = name; }
void set_runs(int count) { runs = count; }
std::vector<double> seconds_of_runs() { return seconds; }

Conv3dResult conv3d(const std::string& path, const std::string& name, const Array& x, int64_t out,
                    std::array<int, 3> kernel, const std::string& time, int64_t piece_bytes, bool exact, bool bias,
                    const std::string& lowering, bool reflect, const Array& residual, int threads) {
    const ModelFiles files({path}, Naming{});
    const Backend backend = backend_for(exact, threads);
    Workspace workspace(backend);
    Weights weights(files, backend, "op", "");
    const Conv3d c = declare_conv3d(
        weights, name, x.dim(3), out, kernel,
        {{}, false, bias, conv_lowering(lowering), reflect ? SpacePadding::reflect : SpacePadding::zeros});
    check_weights({&weights});
    weights.acquire({});
    Plan g(backend, "op", nullptr);
    ggml_tensor* in = input(g, x);
    ggml_tensor* added = residual.empty() ? nullptr : input(g, residual);
    ggml_tensor* y = sdltx::conv3d(g, c, in, time_padding(time), added, piece_bytes);
    y = g.output(added ? ggml_add(g.ctx(), y, added) : y, "output");
    const std::vector<size_t> working = workspace.measure(g);
    g.set(in, x.data);
    if (added) g.set(added, residual.data);
    run(workspace, g, y);
    return {result(g, y), std::accumulate(working.begin(), working.end(), g.inputs().size())};
}

Array attention(const Array& q, const Array& k, const Array& v, const Array& mask, float scale, bool exact,
                const std::string& kernel, int64_t patience, int threads) {
    const auto build = [&](Plan& g, const auto& in) {
        ggml_tensor* half = in[3] ? ggml_cast(g.ctx(), in[3], GGML_TYPE_F16) : nullptr;
        if (kernel == "own") return sdltx::attention(g, in[0], in[1], in[2], half, scale, exact);
        const auto attend = kernel == "device" ? device_attention : softmax_attention;
        return attend(g, in[0], in[1], in[2], half, scale);
    };
    return run(exact, {&q, &k, &v, &mask}, build, patience, threads);
}

Array attention(const Array& q, const Array& k, const Array& v, const BiasCase& bias, float scale, bool exact,
                int64_t patience, int threads) {
    const auto build = [&](Plan& g, const auto& in) {
        ggml_tensor* which = g.input("which", GGML_TYPE_I32, {static_cast<int64_t>(bias.which.size())});
        g.set(which, bias.which);
        return sdltx::attention(g, in[0], in[1], in[2], AttentionBias{in[3], which, in[4], bias.count}, scale, exact);
    };
    return run(exact, {&q, &k, &v, &bias.rows, &bias.own}, build, patience, threads);
}

namespace {

ggml_type type_named(const std::string& name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (ggml_type_name(type) && name == ggml_type_name(type)) return type;
    }
    throw Error(ErrorCode::invalid_request, "[ops] type '" + name + "' is unknown");
}

}  // namespace

std::vector<uint8_t> quantise(const Array& rows, const std::string& name) {
    const ggml_type type = type_named(name);
    std::vector<uint8_t> bytes(ggml_row_size(type, rows.dim(1)) * static_cast<size_t>(rows.dim(0)));
    ggml_quantize_chunk(type, rows.data.data(), bytes.data(), 0, rows.dim(0), rows.dim(1), nullptr);
    return bytes;
}

Array linear(const LinearCase& c) {
    const bool eight_bits = c.type == "e4m3" || c.type == "e5m2";
    TensorInfo stored{}, powers{};
    stored.dtype = c.type == "e5m2" ? "F8_E5M2" : "F8_E4M3";
    powers.data = c.powers.data();
    if (!c.powers.empty()) stored.block_scale = &powers;
    const auto build = [&](Plan& g, const auto& in) {
        ggml_tensor* w = g.input("w", eight_bits ? fp8_type : type_named(c.type), {c.x.dim(1), c.outputs});
        g.set(w, c.w.data(), c.w.size());
        if (!c.own) return product(g, w, in[0]);
        return sdltx::linear(g, {w, in[1], in[2], eight_bits ? &stored : nullptr}, in[0],
                             c.activation == "none" ? Activation::none : Activation::gelu_tanh);
    };
    return run(c.exact, {&c.x, &c.bias, &c.scale}, build, c.patience, c.threads);
}

Array depth_to_space(const Array& x, std::array<int, 3> stride) {
    return run(true, {&x}, [&](Plan& g, const auto& in) { return sdltx::depth_to_space(g, in[0], stride); });
}

Array pad_width(const Array& x, int64_t before, int64_t after) {
    return run(true, {&x}, [&](Plan& g, const auto& in) { return sdltx::pad_width(g, in[0], before, after); });
}

Array rms_norm(const Array& x, const Array& w, float eps) {
    return run(true, {&x, &w}, [&](Plan& g, const auto& in) { return sdltx::rms_norm(g, in[0], in[1], eps); });
}

Array normed_heads(const Array& x, const Array& w, int64_t head_dim, const Array& cos, const Array& sin, float eps,
                   int threads) {
    const auto build = [&](Plan& g, const auto& in) {
        return sdltx::normed_heads(g, in[0], in[1], head_dim, in[2], in[3], eps);
    };
    return run(true, {&x, &w, &cos, &sin}, build, 0, threads);
}

namespace {

RowRuns row_runs(const Runs& given) {
    RowRuns rows;
    for (const auto& [first, count, value] : given) rows.push_back({first, count, value});
    return rows;
}

}  // namespace

Array modulate(const Array& x, const Array& scale1, const Array& shift, const Runs& given) {
    return run(true, {&x, &scale1, &shift},
               [&](Plan& g, const auto& in) { return sdltx::modulate(g, in[0], in[1], in[2], row_runs(given)); });
}

Array modulated_norm(const Array& x, const Array& scale1, const Array& shift, const Runs& given, float eps,
                     int threads) {
    const auto build = [&](Plan& g, const auto& in) {
        return sdltx::modulated_norm(g, in[0], in[1], in[2], row_runs(given), eps);
    };
    return run(true, {&x, &scale1, &shift}, build, 0, threads);
}

Array gated_sum(const Array& x, const Array& y, const Array& gate, const Runs& given, int threads) {
    const auto build = [&](Plan& g, const auto& in) {
        return sdltx::gated_sum(g, in[0], in[1], in[2], row_runs(given));
    };
    return run(true, {&x, &y, &gate}, build, 0, threads);
}

Array gelu_tanh(const Array& x, bool exact) {
    return run(exact, {&x}, [&](Plan& g, const auto& in) { return sdltx::gelu_tanh(g, in[0]); });
}

Array rotate_half(const Array& x, const Array& cos, const Array& sin) {
    return run(true, {&x, &cos, &sin},
               [&](Plan& g, const auto& in) { return sdltx::rotate_half(g, in[0], in[1], in[2]); });
}

std::array<double, 3> copy_seconds(const std::string& name, size_t bytes) {
    const Backend backend(name, false, 0);
    State state(backend, "copies");
    ggml_tensor* there = state.tensor("bytes", GGML_TYPE_I8, {static_cast<int64_t>(bytes)});
    state.allocate();
    std::vector<uint8_t> here(bytes), back(bytes);
    for (size_t i = 0; i < bytes; ++i) here[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
    const auto least = [&](const auto& copy) {
        double seconds = 1e9;
        for (int i = 0; i < 5; ++i) {
            const auto start = std::chrono::steady_clock::now();
            copy();
            seconds =
                std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return seconds;
    };
    const double uploaded = least([&] { backend.uploads().upload(there, here.data()); });
    const double got = least([&] { ggml_backend_tensor_get(there, back.data(), 0, bytes); });
    if (back != here) throw Error(ErrorCode::backend, "[ops] what was copied to '" + name + "' comes back otherwise");
    return {uploaded, least([&] { ggml_backend_tensor_set(there, here.data(), 0, bytes); }), got};
}

bool stop_ends_all_pieces(const std::string& device) {
    Backend backend(device, false, 1);
    backend.set_patience(1);  // every operation is a turn
    bool asked = false;
    backend.exchange_poll([&] { return std::exchange(asked, true); });
    const TensorContext memory(ggml_init({64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}));
    ggml_context* ctx = memory.get();
    // Large operations after a small one, so that they are turns at whatever speed that has shown.
    ggml_tensor *small = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 64),
                *large = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, 1 << 20);
    ggml_tensor *first = ggml_sqr(ctx, small), *middle = ggml_sqr(ctx, large), *last = ggml_sqr(ctx, middle);
    const std::vector<Buffer> buffers = backend.allocate({small, large}, Backend::Use::state, 0, "test");
    for (auto& b : buffers) ggml_backend_buffer_clear(b.get(), 0);
    ggml_cgraph* graph = ggml_new_graph(ctx);
    for (ggml_tensor* t : {first, last}) ggml_build_forward_expand(graph, t);
    std::vector<ggml_backend_t> backends = backend.backends();
    ggml_backend_sched_t sched =
        ggml_backend_sched_new(backends.data(), nullptr, static_cast<int>(backends.size()), 64, false, true);
    ggml_backend_sched_set_tensor_backend(sched, middle, backends.back());
    ggml_backend_sched_set_tensor_backend(sched, last, backends.front());
    const bool placed = ggml_backend_sched_alloc_graph(sched, graph) && ggml_backend_sched_get_n_splits(sched) == 3;
    const ggml_status status = placed ? backend.compute(sched, graph, {}) : GGML_STATUS_FAILED;
    ggml_backend_sched_free(sched);
    return asked && status == GGML_STATUS_ABORTED;
}

double resident_after_advice(const std::string& path, double seconds) {
    const MappedFile file(path);
    file.will_need(file.data(), file.size());
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (file.resident() < 1 && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return file.resident();
}

void abort(const std::string& message) {
    const Backend backend("cpu", false, 1);  // sets what is said
    GGML_ABORT("%s", message.c_str());
}

}  // namespace sdltx::single_op
