// What a run takes, and what is held.
#include <algorithm>
#include <numeric>

#include "ltxv/latent_upsampler.h"
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

Pipeline::Estimate Pipeline::estimate(const ClipPlan& plan, const Tiling& tiling,
                                      const std::vector<Condition>& conditions) {
    const Turn turn(*this);
    check_frames(conditions, plan.whole.num_frames);
    const auto shape_of = [](const SampleSettings& s) {
        return std::array<int64_t, 3>{s.latent.frames, s.latent.height, s.latent.width};
    };
    Estimate e;
    if (networks_->text_encoder) e.encode = sum(networks_->text_encoder->measure(TextProjection::context_rows));
    if (networks_->video_encoder && !conditions.empty())
        e.encode = std::max(e.encode, networks_->video_encoder->measure(
                                          {1, plan.whole.latent.height, plan.whole.latent.width}, untiled));
    if (networks_->transformer)
        for (const ClipPlan::Stage& stage : plan.stages)
            e.denoise = std::max(e.denoise, denoising_memory(stage.settings, inputs_of(plan, stage, conditions)));
    std::array<int64_t, 3> shape = shape_of(plan.stages.front().settings);
    if (networks_->video_decoder)
        for (const std::string& path : plan.upscalers) {
            const ModelFiles files(path, "a latent upscaler");
            const LatentUpsampler network(files, *workspace_, latent_channels());
            e.upscale = std::max(e.upscale, network.measure(shape));
            shape = network.result(shape);
        }
    if (networks_->video_decoder) e.decode = networks_->video_decoder->measure(shape_of(plan.whole), tiling);
    workspace_->release();
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
