#include "duration_head.h"

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "ggml/attention.h"
#include "ggml/ops.h"

namespace sdltx {

namespace {

constexpr const char* where = "duration head";
constexpr const char* prefix = "duration_head.";
constexpr double shortest = 1, longest = 20;  // seconds

std::vector<int64_t> shape_of(const ModelFiles& files, const std::string& name, size_t rank) {
    const TensorInfo* t = files.find(prefix + name);
    if (!t || t->shape.size() != rank || *std::min_element(t->shape.begin(), t->shape.end()) < 1)
        throw Error(ErrorCode::model_mismatch, std::string("[") + where + "] there is no usable " + prefix + name +
                                                   "; use the file of LTX-2.5's duration head");
    return t->shape;
}

// Of the released head, whose configuration leaves it out.
constexpr int64_t heads_of_release = 4;

int64_t heads_of(const ModelFiles& files) {
    for (const std::string& text : files.all_metadata("config", prefix)) {
        const Json j = parse_json(text, std::string("config metadata of the ") + where);
        if (j.contains("duration_head") && j.at("duration_head").is_object())
            return value_or<int64_t>(j.at("duration_head"), "num_pooler_heads", heads_of_release, where);
    }
    return heads_of_release;
}

}  // namespace

DurationHead::DurationHead(const ModelFiles& files, Workspace& workspace)
    : workspace_(workspace), weights_(files, workspace.backend(), where, prefix), heads_(heads_of(files)) {
    const std::string pooler = "attention_pooler.";
    const std::vector<int64_t> queries = shape_of(files, pooler + "query_tokens", 2);
    queries_ = queries[0];
    dim_ = queries[1];
    if (heads_ < 1 || dim_ % heads_)
        throw Error(ErrorCode::model_mismatch, std::string("[") + where + "] " + std::to_string(heads_) +
                                                   " heads do not share a width of " + std::to_string(dim_));
    video_ = declare_stream(files, "video");
    audio_ = declare_stream(files, "audio");
    query_tokens_ = weights_.vector(pooler + "query_tokens", queries);
    // The three matrices of the attention lie in one, under names of PyTorch's.
    const std::string attention = pooler + "cross_attn.";
    in_proj_ = {weights_.matrix(attention + "in_proj_weight", {3 * dim_, dim_}),
                weights_.vector(attention + "in_proj_bias", {3 * dim_}), nullptr, nullptr};
    out_proj_ = declare_linear(weights_, attention + "out_proj", dim_, dim_);
    const int64_t hidden = shape_of(files, "mlp_hidden.weight", 2)[0];
    mlp_hidden_ = declare_linear(weights_, "mlp_hidden", queries_ * dim_, hidden);
    mlp_out_ = declare_linear(weights_, "mlp_out", hidden, 1);
}

DurationHead::Stream DurationHead::declare_stream(const ModelFiles& files, const std::string& name) {
    Stream s{};
    s.width = shape_of(files, name + "_input_proj.weight", 2)[1];
    s.input_proj = declare_linear(weights_, name + "_input_proj", s.width, dim_);
    // Some files have it as a row.
    const TensorInfo* t = files.find(prefix + name + "_modality_emb");
    const bool row = t && t->shape == std::vector<int64_t>{1, dim_};
    s.modality_emb =
        weights_.vector(name + "_modality_emb", row ? std::vector<int64_t>{1, dim_} : std::vector<int64_t>{dim_});
    return s;
}

DurationHead::Built DurationHead::build(int64_t video_rows, int64_t audio_rows, Trace* trace) const {
    Built b;
    b.plan = std::make_unique<Plan>(workspace_.backend(), where, trace);
    Plan& g = *b.plan;
    ggml_context* ctx = g.ctx();
    const auto tokens = [&](const Stream& s, const char* name, int64_t rows, ggml_tensor*& input) -> ggml_tensor* {
        if (!rows) return nullptr;
        input = g.input(name, GGML_TYPE_F32, {s.width, rows});
        return ggml_add(ctx, linear(g, s.input_proj, input), ggml_reshape_1d(ctx, s.modality_emb, dim_));  // [D, rows]
    };
    ggml_tensor* v = tokens(video_, "video", video_rows, b.video);
    ggml_tensor* a = tokens(audio_, "audio", audio_rows, b.audio);
    ggml_tensor* x = v && a ? ggml_concat(ctx, v, a, 1) : v ? v : a;  // [D, T]
    // Part i of the joint projection of x, by heads: [D / heads, heads, columns of x].
    const int64_t head_dim = dim_ / heads_;
    const auto part = [&](ggml_tensor* joint, int64_t i) {
        const auto offset = static_cast<size_t>(i * dim_) * joint->nb[0];
        ggml_tensor* rows = ggml_cont(ctx, ggml_view_2d(ctx, joint, dim_, joint->ne[1], joint->nb[1], offset));
        return ggml_reshape_3d(ctx, rows, head_dim, heads_, rows->ne[1]);
    };
    ggml_tensor* keys_and_values = linear(g, in_proj_, x);  // [3 D, T]
    ggml_tensor* q = part(linear(g, in_proj_, ggml_reshape_2d(ctx, query_tokens_, dim_, queries_)), 0);
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    ggml_tensor* y = attention(g, q, part(keys_and_values, 1), part(keys_and_values, 2), nullptr, scale, true);
    y = linear(g, out_proj_, ggml_reshape_2d(ctx, y, dim_, queries_));  // [D, queries]
    y = g.stage(y, std::string(prefix) + "attention_pooler");
    y = g.stage(linear(g, mlp_hidden_, ggml_reshape_2d(ctx, y, dim_ * queries_, 1)),
                std::string(prefix) + "mlp_hidden");
    b.log_seconds = g.output(linear(g, mlp_out_, gelu_tanh(g, y)), "log_seconds");
    return b;
}

double DurationHead::seconds(const Context& context, Trace* trace) const {
    const auto rows = [&](const Array& a, const Stream& s) -> int64_t {
        if (a.empty()) return 0;
        if (a.shape.size() != 2 || a.dim(1) != s.width)
            throw Error(ErrorCode::model_mismatch, std::string("[") + where + "] it reads contexts of width " +
                                                       std::to_string(s.width) + ", and this one is " +
                                                       spell_shape(a.shape) + "; use parts of the same model");
        return a.dim(0);
    };
    const int64_t of_video = rows(context.video, video_), of_audio = rows(context.audio, audio_);
    if (!of_video && !of_audio)
        throw Error(ErrorCode::invalid_request, std::string("[") + where + "] the context is empty");
    const Built b = build(of_video, of_audio, trace);
    if (b.video) b.plan->set(b.video, context.video.data);
    if (b.audio) b.plan->set(b.audio, context.audio.data);
    workspace_.run(*b.plan);
    const double found = std::exp(static_cast<double>(b.plan->get(b.log_seconds).front()));
    if (!std::isfinite(found))
        throw Error(ErrorCode::backend, std::string("[") + where + "] it gave no number; give a length yourself");
    return found;
}

MemoryUse DurationHead::measure(int64_t rows) const { return workspace_.measure_all(*build(rows, rows, nullptr).plan); }

int64_t frames_of_duration(double seconds, double frame_rate, int64_t unit) {
    const auto whole = [](double x) { return static_cast<int64_t>(std::nearbyint(x)); };  // halves to even
    const int64_t least = whole(shortest * frame_rate), most = whole(longest * frame_rate);
    const int64_t frames = std::max(least, std::min(whole(std::min(seconds, longest) * frame_rate), most));
    const int64_t fitting = (frames - 1) / unit * unit + 1;
    return fitting >= least ? fitting : std::min((least - 1 + unit - 1) / unit * unit + 1, most);
}

}  // namespace sdltx
