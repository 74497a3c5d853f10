// What a run takes, and what is held.
#include <algorithm>
#include <map>
#include <numeric>

#include "ltxv/latent_upsampler.h"
#include "model/names.h"
#include "pipeline.h"

namespace sdltx {

MemoryUse Pipeline::denoising_memory(const SampleSettings& settings, const Inputs& inputs) {
    const Geometry& g = settings.latent;
    const TransformerConfig& c = *config_.transformer;
    // What pictures become, by their sizes.
    const Array picture{{c.video.in_channels, 1, g.height, g.width},
                        std::vector<float>(static_cast<size_t>(c.video.in_channels * g.height * g.width))};
    Start start{inputs.video, inputs.audio, nullptr};
    for (const Condition& condition : inputs.conditions)
        start.video.keyframes.push_back({picture, frame_of(condition, settings.num_frames), condition.strength});
    const SampleState state = start_of(c, *config_.audio, settings, start);
    const auto rows = [](int64_t width) { return Array{{TextProjection::context_rows, width}, {}}; };
    const Context context{rows(c.video.context_dim), rows(c.audio.context_dim)}, negative = context;
    Denoiser denoiser(*networks_->transformer, *workspace_, context, &negative, settings.guidance, state, nullptr,
                      loras(inputs.loras), inputs.keeps_text);
    MemoryUse use = denoiser.measure();
    use.host += contexts_of(settings);
    return use;
}

namespace {

double weights_of(const Weights& weights) {
    double count = 0;
    for (const Weights::Tensor& t : weights.tensors())
        count += std::accumulate(t.shape.begin(), t.shape.end(), 1.0, std::multiplies<double>());
    return count;
}

double cells_of(const Geometry& g) { return static_cast<double>(g.frames * g.height * g.width); }

}  // namespace

// Multiply-adds, roughly: for a bar that moves evenly, nothing else.
double Pipeline::operations(const Step& step) const {
    constexpr double prompt_tokens = 256, convolutions_per_weight = 16, upscaling_per_cell = 4e8,
                     sound_convolutions_per_weight = 14;
    const Geometry& g = step.settings.latent;
    const Networks& n = *networks_;
    switch (step.kind) {
        case StepKind::encode_prompts:
            return n.text_encoder ? weights_of(n.text_encoder->weights()) * prompt_tokens : 0;
        case StepKind::encode_pictures:
            return n.video_encoder ? weights_of(n.video_encoder->weights()) * convolutions_per_weight *
                                         static_cast<double>(g.height * g.width)
                                   : 0;
        case StepKind::encode_sound:
            return n.audio_encoder ? weights_of(n.audio_encoder->weights()) * sound_convolutions_per_weight *
                                         static_cast<double>(g.audio_frames)
                                   : 0;
        case StepKind::denoise: {
            if (!n.transformer) return 0;
            const TransformerConfig& c = n.transformer->config();
            const double tokens = step.settings.video ? cells_of(g) : static_cast<double>(g.audio_frames) / 4,
                         layers = static_cast<double>(c.num_layers);
            const double pass = weights_of(n.transformer->weights()) * tokens +
                                2 * tokens * tokens * static_cast<double>(c.video.dim()) * layers;
            double calls = 0;
            for (const float sigma : Stepper::levels(step.settings.sampler, step.settings.sigmas))
                calls += static_cast<double>(Stepper::calls(step.settings.sampler, sigma));
            return pass * calls * step.settings.guidance.passes();
        }
        case StepKind::upscale:
            return cells_of(g) * upscaling_per_cell;
        case StepKind::decode_pictures:
            return n.video_decoder ? weights_of(n.video_decoder->weights()) * convolutions_per_weight * cells_of(g) : 0;
        case StepKind::decode_sound:
            return n.audio_decoder && n.vocoder
                       ? (weights_of(n.audio_decoder->weights()) + weights_of(n.vocoder->weights())) *
                             sound_convolutions_per_weight * static_cast<double>(g.audio_frames)
                       : 0;
    }
    return 0;
}

size_t Pipeline::contexts_of(const SampleSettings& settings) const {
    if (!config_.transformer) return 0;
    const TransformerConfig& c = *config_.transformer;
    const int64_t contexts = settings.guidance.needs_negative() ? 2 : 1;
    return static_cast<size_t>(contexts * TextProjection::context_rows * (c.video.context_dim + c.audio.context_dim)) *
           sizeof(float);
}

namespace {

std::array<int64_t, 3> shape_of_stage(const SampleSettings& s) {
    return {s.latent.frames, s.latent.height, s.latent.width};
}

}  // namespace

std::array<int64_t, 3> Pipeline::shape_of(const Latents& l) { return {l.video.dim(1), l.video.dim(2), l.video.dim(3)}; }

std::vector<MemoryUse> Pipeline::measure(const ClipPlan& plan, const Request& request, const Latents* latents,
                                         const std::function<bool(const Step&)>& wanted) {
    const Networks& n = *networks_;
    std::array<int64_t, 3> shape =
        shape_of_stage(plan.of(StepKind::denoise).front()->settings);  // between the upscalers
    std::vector<MemoryUse> uses;
    for (const Step& step : plan.steps) {
        MemoryUse& use = uses.emplace_back();
        const bool decodes = step.kind == StepKind::decode_pictures || step.kind == StepKind::decode_sound;
        if ((latents && !decodes) || (wanted && !wanted(step))) continue;
        switch (step.kind) {
            case StepKind::encode_prompts:
                if (!n.text_encoder) break;
                use = n.text_encoder->measure(TextProjection::context_rows);
                if (n.text_projection) {
                    MemoryUse then = n.text_projection->measure(TextProjection::context_rows);
                    then.host += use.host;
                    use.also(then);
                }
                if (writes(request))
                    use.also(writing_memory(idea_of(request), request.options.enhance_system.value_or("")));
                break;
            case StepKind::encode_pictures:
                if (!n.video_encoder) break;
                use = n.video_encoder->measure({1, step.settings.latent.height, step.settings.latent.width}, untiled);
                if (!request.film.empty() && plan.task != Task::dub)
                    use.also(n.video_encoder->measure(shape_of_stage(step.settings), Tiling{}));
                for (const Request::Reference& reference : references_of(plan, step, request))
                    use.also(n.video_encoder->measure(shape_of_reference(plan, step, reference).cells, Tiling{}));
                use.host += contexts_of(step.settings);
                break;
            case StepKind::encode_sound:
                if (!n.audio_encoder) break;
                use = n.audio_encoder->measure(4 * step.settings.latent.audio_frames);
                use.host += contexts_of(step.settings);
                break;
            case StepKind::denoise:
                if (n.transformer) use = denoising_memory(step.settings, sizes_of(plan, step, request));
                break;
            case StepKind::upscale:
                if (n.video_decoder) {
                    const ModelFiles files(step.upscaler, upscaler_kind, ltx_naming());
                    const LatentUpsampler network(files, *workspace_, latent_channels());
                    use = network.measure(shape);
                    use.host += contexts_of(step.settings);
                    shape = network.result(shape);
                }
                break;
            case StepKind::decode_pictures:
                if (n.video_decoder && !(latents && latents->video.empty()))
                    use = n.video_decoder->measure(latents ? shape_of(*latents) : shape_of_stage(step.settings),
                                                   tiling_of(request.options));
                break;
            case StepKind::decode_sound:
                if (n.audio_decoder && n.vocoder && (latents ? !latents->audio.empty() : step.settings.audio)) {
                    const int64_t frames = latents ? latents->audio.dim(1) : step.settings.latent.audio_frames;
                    use = n.audio_decoder->measure(frames);
                    use.also(n.vocoder->measure(4 * (frames - 1) + 1, sound_piece_seconds));
                }
        }
        if (use.total()) use.host += always_taken;
    }
    return uses;
}

Weights::Size Pipeline::upscaler_size(const std::string& path) const {
    const ModelFiles files(path, upscaler_kind, ltx_naming());
    LatentUpsampler network(files, *workspace_, latent_channels());
    return network.weights().size();
}

std::vector<Weights*> Pipeline::networks_of(const Step& step) {
    Networks& n = *networks_;
    std::vector<Weights*> found;
    switch (step.kind) {
        case StepKind::encode_prompts:
            if (n.text_encoder && n.text_projection) found = encoding();
            break;
        case StepKind::encode_pictures:
            if (n.video_encoder) found = {&n.video_encoder->weights()};
            break;
        case StepKind::encode_sound:
            if (n.audio_encoder) found = {&n.audio_encoder->weights()};
            break;
        case StepKind::denoise: {
            const std::shared_ptr<Loras> with = n.transformer ? loras(step.loras) : nullptr;
            if (n.transformer) n.transformer->use_streams(step.settings.video, step.settings.audio);
            if (n.transformer) found = denoising(with.get());
            break;
        }
        case StepKind::upscale:
            break;  // its file is opened when it is needed
        case StepKind::decode_pictures:
            if (n.video_decoder) found = {&n.video_decoder->weights()};
            break;
        case StepKind::decode_sound:
            if (n.audio_decoder && n.vocoder) found = {&n.audio_decoder->weights(), &n.vocoder->weights()};
    }
    return found;
}

std::vector<StepMemory> Pipeline::estimate(ClipPlan plan, const Request& request) {
    const Turn turn(*this);
    check_options(plan);
    if (!plan.length_by_prompt) check_frames(request.images, plan.whole.num_frames);
    std::vector<MemoryUse> uses = measure(plan, request);
    std::vector<Fit> fits;
    for (size_t i = 0; i < uses.size(); ++i)
        fits.push_back(uses[i].total()
                           ? fit(plan, plan.steps[i], request, shape_of_stage(plan.steps[i].settings), uses[i])
                           : Fit{});
    workspace_->release();
    std::vector<StepMemory> steps;
    std::map<const Weights*, std::vector<size_t>> staying;  // of steps before, by device
    for (size_t i = 0; i < uses.size(); ++i) {
        const Step& step = plan.steps[i];
        const std::vector<Weights*> networks = networks_of(step);
        const Placed placed = place(networks, uses[i], /*alone=*/true);
        StepMemory& memory = steps.emplace_back();
        memory.kind = step.kind;
        memory.operations = operations(step);
        if (plan.task == Task::extend && step.kind != StepKind::encode_prompts)
            memory.operations *= static_cast<double>(plan.extension.windows());
        memory.host = uses[i].host;
        memory.passing = placed.passing;
        if (placed.passing) memory.reading = reading_seconds(networks, placed.passing);
        memory.brought = placed.brought;
        memory.tiles = fits[i].tiles;
        memory.misfit = fits[i].misfit;
        std::vector<size_t> own = placed.own;
        for (Weights* w : networks) staying.erase(w);
        for (auto& [w, bytes] : staying)
            for (size_t d = 0; d < own.size(); ++d) own[d] += bytes[d];
        bool together = true;
        for (size_t d = 0; d < own.size(); ++d) together = together && own[d] <= placed.room[d];
        if (!together && backend_->offload() == Offload::automatic) {
            own = placed.own;
            staying.clear();
        }
        for (size_t d = 0; d < uses[i].working.size(); ++d)
            memory.devices.push_back(
                {backend_->device_name(d), d < own.size() ? own[d] : 0, 0, uses[i].inputs[d], uses[i].working[d]});
        if (!networks.empty() && !memory.devices.empty() && backend_->offload() != Offload::stage &&
            backend_->offload() != Offload::blocks)
            staying[networks.front()] = placed.own;
        if (backend_->uses_host_memory() && !memory.devices.empty()) memory.devices.back().mapped = placed.mapped;
        if (step.kind == StepKind::upscale && networks_->video_decoder && !memory.devices.empty()) {
            const Weights::Size size = upscaler_size(step.upscaler);
            memory.devices.front().weights = size.own;
            memory.devices.back().mapped = size.mapped;
        }
    }
    return steps;
}

std::vector<Pipeline::DeviceMemory> Pipeline::memory() {
    const Turn turn(*this);
    std::vector<DeviceMemory> devices;
    const std::vector<size_t> held = workspace_->held();
    for (size_t i = 0; i < held.size(); ++i) {
        devices.push_back({backend_->device_name(i), backend_->allocated(Backend::Use::weights, i),
                           backend_->allocated(Backend::Use::state, i), held[i]});
    }
    for (const Weights* w : networks_->weights()) devices.back().mapped += w->mapped();
    return devices;
}

}  // namespace sdltx
