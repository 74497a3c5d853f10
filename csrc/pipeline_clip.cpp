// What a request comes to, and clips of several stages.
#include <algorithm>

#include "ggml/values.h"
#include "ltxv/latent_upsampler.h"
#include "pipeline.h"

namespace sdltx {

namespace {

UpscaleFactor factor_of(const std::vector<std::string>& upscalers) {
    UpscaleFactor factor;
    for (const std::string& path : upscalers) switch (LatentUpsampler::kind_of(ModelFiles(path, "a latent upscaler"))) {
            case LatentUpsampler::Kind::space_2:
                factor.numerator *= 2;
                break;
            case LatentUpsampler::Kind::space_3_2:
                factor.numerator *= 3;
                factor.denominator *= 2;
                break;
            case LatentUpsampler::Kind::time_2:
                factor.frames *= 2;
        }
    return factor;
}

// The only one of `found`; empty if there is none.
std::string only(const std::vector<std::string>& found, const std::string& what) {
    if (found.size() > 1) {
        std::string text;
        for (const std::string& path : found) text += (text.empty() ? "" : ", ") + path;
        throw Error(ErrorCode::invalid_request,
                    "[recipe] several files are " + what + " (" + text + "); name the one to take");
    }
    return found.empty() ? "" : found.front();
}

[[noreturn]] void lacks(const Recipe& recipe, const std::string& what) {
    throw Error(ErrorCode::model_mismatch, "[recipe] " + std::string(recipe.name) + " needs " + what +
                                               "; give its file, or the folder where it lies among those of the model");
}

bool any_distilled(const std::vector<LoraFile>& loras) {
    return std::any_of(loras.begin(), loras.end(), [](const LoraFile& f) { return is_distilled_lora(f.path); });
}

}  // namespace

std::vector<std::pair<std::string, std::string>> Pipeline::upscalers() const {
    std::vector<std::pair<std::string, std::string>> found;
    const std::shared_ptr<const ModelFiles> open = files();
    for (auto& addition : open->additions()) {
        if (addition.kind != "a latent upscaler") continue;
        const ModelFiles files(addition.file->path(), addition.kind);
        try {
            found.emplace_back(addition.file->path(), LatentUpsampler::name_of(LatentUpsampler::kind_of(files)));
        } catch (const Error& e) {
            log(20, e.what());  // one of another kind
        }
    }
    return found;
}

std::string Pipeline::find_upscaler() const {
    std::vector<std::string> found;
    for (auto& [path, kind] : upscalers())
        if (kind == LatentUpsampler::name_of(LatentUpsampler::Kind::space_2)) found.push_back(path);
    return only(found, "spatial upscalers");
}

std::string Pipeline::find_distilled_lora() const {
    std::vector<std::string> found;
    const std::shared_ptr<const ModelFiles> open = files();
    for (auto& addition : open->additions())
        if (addition.kind == "a LoRA" && is_distilled_lora(addition.file->path()))
            found.push_back(addition.file->path());
    return only(found, "distilled LoRAs");
}

SampleSettings Pipeline::resolve_stage(const SampleOptions& options) const {
    constexpr int64_t blocks_of_release = 48;
    return sdltx::resolve(options, *info_.preset, info_.defaults,
                          config_.transformer ? config_.transformer->num_layers : blocks_of_release);
}

ClipPlan Pipeline::resolve(const SampleOptions& options) const {
    files();  // throws
    sdltx::check(options);
    const Recipe& recipe = recipe_of(options, preset_of(options, *info_.preset));
    ClipPlan plan{&recipe, options.recipe.has_value(), resolve_stage(options), {}, options.upscalers, {}};
    if (recipe.wants_distilled_lora()) {
        const std::vector<LoraFile>& second = options.second_loras ? *options.second_loras : options.loras;
        if (options.distilled_lora)
            plan.distilled_lora = *options.distilled_lora;
        else if (!any_distilled(options.loras) && !any_distilled(second))
            plan.distilled_lora = find_distilled_lora();
        if (plan.asked && plan.distilled_lora.empty() && !any_distilled(second))
            lacks(recipe, "the distilled LoRA of the checkpoint");
    }
    if (!recipe.two_stages) {
        plan.stages = {{plan.whole, options.loras}};
        return plan;
    }
    if (plan.upscalers.empty()) plan.upscalers = {find_upscaler()};
    if (plan.upscalers.front().empty()) lacks(recipe, "a spatial upscaler");
    const TwoRequests requests = two_stages(options, plan.whole, factor_of(plan.upscalers));
    const auto stage = [&](const SampleOptions& of, const std::vector<LoraFile>& loras, float strength) {
        return ClipPlan::Stage{resolve_stage(of), loras_of_stage(loras, plan.distilled_lora, strength)};
    };
    plan.whole = resolve_stage(requests.whole);
    plan.stages = {stage(requests.first, options.loras, recipe.first_strength),
                   stage(requests.second, options.second_loras.value_or(options.loras), recipe.second_strength)};
    plan.whole.sigmas = plan.stages[0].settings.sigmas;
    plan.whole.schedule = plan.stages[0].settings.schedule;
    return plan;
}

std::vector<std::string> Pipeline::doubts(const ClipPlan& plan) const {
    files();  // throws
    const bool own_defaults = info_.defaults.num_inference_steps.has_value();
    std::vector<std::string> lines =
        sdltx::doubts(plan.stages.front().settings, *info_.preset, own_defaults, info_.distilled_told || plan.asked);
    const Recipe& recipe = *plan.recipe;
    if (recipe.wants_distilled_lora() && plan.distilled_lora.empty() && !own_defaults &&
        !any_distilled(plan.stages.back().loras))
        lines.push_back("[recipe] " + std::string(recipe.name) +
                        " refines with the distilled LoRA of the checkpoint, which is not among the files; without it "
                        "the second stage leaves noise");
    return lines;
}

// Frames of the clip are others of a stage that has fewer.
Pipeline::Inputs Pipeline::inputs_of(const ClipPlan& plan, const ClipPlan::Stage& stage,
                                     const std::vector<Condition>& conditions) {
    const int64_t frames = plan.whole.num_frames, own = stage.settings.num_frames;
    Inputs inputs;
    inputs.conditions = conditions;
    for (Condition& c : inputs.conditions)
        c.frame = frame_of(c, frames) / std::max<int64_t>(1, (frames - 1) / std::max<int64_t>(1, own - 1));
    inputs.loras = stage.loras;
    inputs.appends_first_frame = plan.recipe->appends_first_frame;
    return inputs;
}

void Pipeline::check(const ClipPlan& plan, const std::vector<Condition>& conditions) {
    const Turn turn(*this);
    check_frames(conditions, plan.whole.num_frames);
    for (const ClipPlan::Stage& stage : plan.stages)
        check_frames(inputs_of(plan, stage, conditions).conditions, stage.settings.num_frames);
    for (const Condition& c : conditions)
        if (c.latent.empty()) require({Part::video_encoder});
    if (plan.recipe->appends_first_frame && conditions.empty())
        throw Error(ErrorCode::invalid_request,
                    "[recipe] " + std::string(plan.recipe->name) + " needs pictures to go between; give one or more");
    std::vector<LoraFile> wanted;
    for (const ClipPlan::Stage& stage : plan.stages)
        wanted.insert(wanted.end(), stage.loras.begin(), stage.loras.end());
    keep_loras(wanted);
    if (!wanted.empty()) require({Part::transformer});
    loras(wanted);
}

namespace {

// Sound cut to `frames`, or silence after it: sizes of stages are rounded each for itself.
Array with_frames(const Array& audio, int64_t frames) {
    if (audio.empty() || audio.dim(1) == frames) return audio;
    Array out{{audio.dim(0), frames, audio.dim(2)}, {}};
    out.data.resize(static_cast<size_t>(out.dim(0) * frames * out.dim(2)));
    const int64_t kept = std::min(frames, audio.dim(1)) * audio.dim(2);
    for (int64_t c = 0; c < audio.dim(0); ++c)
        std::copy_n(audio.data.begin() + c * audio.dim(1) * audio.dim(2), kept,
                    out.data.begin() + c * frames * audio.dim(2));
    return out;
}

}  // namespace

Latents Pipeline::sample(const Context& context, const Context* negative, const ClipPlan& plan, const Inputs& inputs,
                         const Noise& second_noise, const Progress& progress, const OnStep& on_step) {
    const Turn turn(*this);
    check(plan, inputs.conditions);
    const bool refines = !inputs.initial.video.empty() || !inputs.initial.audio.empty();
    if (refines && plan.stages.size() > 1)
        throw Error(ErrorCode::invalid_request,
                    "[sample] a clip that is refined has one stage; leave out initial or upscaler");
    Latents latents;
    for (const ClipPlan::Stage& stage : plan.stages) {
        Inputs own = inputs_of(plan, stage, inputs.conditions);
        if (&stage == &plan.stages.front()) {
            own.noise = inputs.noise;
            own.initial = inputs.initial;
            latents = sample(context, negative, stage.settings, own, progress, on_step);
            continue;
        }
        for (const std::string& upscaler : plan.upscalers) latents = upsample(latents, upscaler, progress);
        const Array sound = with_frames(latents.audio, stage.settings.latent.audio_frames);
        own.noise = second_noise;
        own.initial = {std::move(latents.video), sound, stage.settings.frame_rate};
        latents = sample(context, negative, stage.settings, own, progress, on_step);
        if (plan.recipe->keeps_first_sound) latents.audio = sound;
    }
    return latents;
}

Latents Pipeline::upsample(const Latents& latents, const std::string& upscaler, const Progress& progress) {
    const Turn turn(*this);
    const auto statistics = [&](const char* name) {
        const TensorInfo* t = files_->find(std::string("vae.per_channel_statistics.") + name);
        if (!t)
            throw Error(ErrorCode::model_mismatch,
                        "[upscaler] the statistics of the video VAE are not among the files; add the file that has it");
        return to_float(*t).data;
    };
    const std::vector<float> mean = statistics("mean-of-means"), deviation = statistics("std-of-means");
    const ModelFiles files(upscaler, "a latent upscaler");
    LatentUpsampler network(files, *workspace_, static_cast<int64_t>(mean.size()));
    Latents out = latents;
    const int64_t cells = out.video.empty() ? 0 : out.video.dim(1) * out.video.dim(2) * out.video.dim(3);
    if (out.video.shape.size() != 4 || out.video.dim(0) != static_cast<int64_t>(mean.size()))
        throw Error(ErrorCode::invalid_request, "[upscaler] expected video latents of (" + std::to_string(mean.size()) +
                                                    ", frames, height, width), got " + spell_shape(out.video.shape));
    check_video_latents(out.video.dim(1), out.video.dim(2), out.video.dim(3));
    const auto [frames, height, width] = network.result({out.video.dim(1), out.video.dim(2), out.video.dim(3)});
    check_video_latents(frames, height, width);
    for (size_t i = 0; i < out.video.data.size(); ++i) {
        const size_t c = i / static_cast<size_t>(cells);
        out.video.data[i] = out.video.data[i] * deviation[c] + mean[c];
    }
    const Stage stage(*this, {&network.weights()}, progress);
    report(progress, "upscale", 0, 1);
    out.video = network.upsample(out.video, tracing());
    report(progress, "upscale", 1, 1);
    const auto more = static_cast<size_t>(frames * height * width);
    for (size_t i = 0; i < out.video.data.size(); ++i)
        out.video.data[i] = (out.video.data[i] - mean[i / more]) / deviation[i / more];
    if (network.kind() == LatentUpsampler::Kind::time_2) out.frame_rate *= 2;
    return out;
}

}  // namespace sdltx
