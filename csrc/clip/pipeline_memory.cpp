// What a run takes, and what is held.
#include <algorithm>
#include <numeric>

#include "ltxv/latent_upsampler.h"
#include "model/names.h"
#include "pipeline.h"

namespace sdltx {

namespace {

size_t sum(const std::vector<size_t>& bytes) { return std::accumulate(bytes.begin(), bytes.end(), size_t{0}); }

}  // namespace

size_t Pipeline::denoising_memory(const SampleSettings& settings, const Inputs& inputs) {
    const Geometry& g = settings.latent;
    const TransformerConfig& c = *config_.transformer;
    StreamState clip = empty_stream(c.video.in_channels, video_positions(g.frames, g.height, g.width, g.frame_rate));
    const int64_t cells = g.height * g.width;
    std::vector<int64_t> runs{clip.num_tokens};  // of tokens that share a timestep
    for (const Condition& condition : inputs.conditions) {
        const int64_t frame = frame_of(condition, settings.num_frames);
        if (frame == 0 && !inputs.appends_first_frame) {
            if (g.frames == 1) continue;  // it is the whole clip
            runs.front() -= cells;
            runs.insert(runs.begin(), cells);
            continue;
        }
        const Array nothing{{c.video.in_channels, 1, g.height, g.width},
                            std::vector<float>(static_cast<size_t>(c.video.in_channels * cells))};
        append_keyframe(clip, g, {nothing, frame, condition.strength});
        runs.push_back(cells);
    }
    const StreamState sound = empty_stream(c.audio.in_channels, audio_positions(settings.audio ? g.audio_frames : 0));
    const auto rows = [](int64_t width) { return Array{{TextProjection::context_rows, width}, {}}; };
    const Context context{rows(c.video.context_dim), rows(c.audio.context_dim)}, negative = context;
    Denoiser denoiser(*networks_->transformer, *workspace_, context, &negative, settings.guidance, {clip, sound},
                      nullptr, loras(inputs.loras));
    const TransformerRun::Memory memory = denoiser.measure(runs);
    return sum(memory.working) + memory.inputs;
}

std::vector<size_t> Pipeline::measure(const ClipPlan& plan, const Request& request) {
    const auto shape_of = [](const SampleSettings& s) {
        return std::array<int64_t, 3>{s.latent.frames, s.latent.height, s.latent.width};
    };
    std::array<int64_t, 3> shape = shape_of(plan.of(StepKind::denoise).front()->settings);  // between the upscalers
    std::vector<size_t> bytes;
    for (const Step& step : plan.steps) {
        size_t& most = bytes.emplace_back(0);
        switch (step.kind) {
            case StepKind::encode_prompts:
                if (networks_->text_encoder) most = sum(networks_->text_encoder->measure(TextProjection::context_rows));
                break;
            case StepKind::encode_pictures:
                if (networks_->video_encoder)
                    most = networks_->video_encoder->measure(
                        {1, step.settings.latent.height, step.settings.latent.width}, untiled);
                break;
            case StepKind::denoise:
                if (networks_->transformer)
                    most = denoising_memory(step.settings, inputs_of(plan, step, request.images));
                break;
            case StepKind::upscale:
                if (networks_->video_decoder) {
                    const ModelFiles files(step.upscaler, upscaler_kind, ltx_naming());
                    const LatentUpsampler network(files, *workspace_, latent_channels());
                    most = network.measure(shape);
                    shape = network.result(shape);
                }
                break;
            case StepKind::decode_pictures:
                if (networks_->video_decoder)
                    most = networks_->video_decoder->measure(shape_of(step.settings), tiling_of(request.options));
                break;
            case StepKind::decode_sound:
                break;  // little beside the pictures
        }
    }
    return bytes;
}

Pipeline::Estimate Pipeline::estimate(const ClipPlan& plan, const Request& request) {
    const Turn turn(*this);
    check_frames(request.images, plan.whole.num_frames);
    const std::vector<size_t> bytes = measure(plan, request);
    workspace_->release();
    Estimate e;
    for (size_t i = 0; i < bytes.size(); ++i) {
        const StepKind kind = plan.steps[i].kind;
        size_t& most = kind == StepKind::denoise                                               ? e.denoise
                       : kind == StepKind::upscale                                             ? e.upscale
                       : kind == StepKind::encode_prompts || kind == StepKind::encode_pictures ? e.encode
                                                                                               : e.decode;
        most = std::max(most, bytes[i]);
    }
    return e;
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

size_t Pipeline::decode_memory(std::array<int64_t, 3> shape, const Tiling& tiling) {
    const Turn turn(*this);
    require({Part::video_decoder});
    const size_t bytes = networks_->video_decoder->measure(shape, tiling);
    workspace_->release();
    return bytes;
}

}  // namespace sdltx
