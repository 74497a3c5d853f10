// What a request comes to, and clips of several stages.
#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "ggml/values.h"
#include "ltxv/latent_upsampler.h"
#include "model/names.h"
#include "pipeline.h"

namespace sdltx {

namespace {

UpscaleFactor factor_of(const std::vector<std::string>& upscalers) {
    UpscaleFactor factor;
    for (const std::string& path : upscalers)
        switch (LatentUpsampler::kind_of(ModelFiles(path, upscaler_kind, ltx_naming()))) {
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
        if (addition.kind != upscaler_kind) continue;
        const ModelFiles files(addition.file->path(), addition.kind, ltx_naming());
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
        if (addition.kind == lora_kind && is_distilled_lora(addition.file->path()))
            found.push_back(addition.file->path());
    return only(found, "distilled LoRAs");
}

SampleSettings Pipeline::resolve_stage(const ClipOptions& options) const {
    constexpr int64_t blocks_of_release = 48;
    return sdltx::resolve(options, *info_.preset, info_.defaults, info_.version,
                          config_.transformer ? config_.transformer->num_layers : blocks_of_release);
}

namespace {

// Whether a sound that is given is told to the model.
bool hears_given(const ClipPlan& plan, const Request& request) {
    if (!plan.whole.audio) return false;
    if (plan.task == Task::extend) return !request.film.sound.samples.empty();
    return plan.task == Task::sound || plan.task == Task::dub ||
           (plan.task == Task::retake && !request.film.sound.samples.empty());
}

// Throws Error(invalid_request) where a retake leaves nothing free.
void check_freedom(const ClipPlan& plan) {
    const Freedom& free = plan.free;
    if (free.everywhere) return;
    const Geometry& g = plan.whole.latent;
    const auto any = [&](bool wanted, const Positions& p) {
        return !wanted || free_run(within(p, free.from, free.to)).last >= 0;
    };
    if (any(free.video, video_positions(g.frames, 1, 1, g.frame_rate)) &&
        any(free.audio && plan.whole.audio, audio_positions(g.audio_frames)))
        return;
    throw Error(ErrorCode::invalid_request,
                "[retake] there is nothing between " + spell_number(free.from) + " and " + spell_number(free.to) +
                    " s of a clip that lasts " +
                    spell_number(static_cast<double>(plan.result_frames) / plan.whole.frame_rate) + " s");
}

// References belong to the first stage, which a dubbing goes on with.
bool follows_in_second(const ClipPlan& plan) { return plan.task == Task::dub; }

// What the files of LoRAs say of the references that they were made for, unless it is asked for.
ReferenceFactors factors_of(const ClipOptions& o) {
    const auto factor = [&](const std::optional<int64_t>& asked, const char* key) {
        if (asked) return *asked;
        int64_t found = 1;
        for (const LoraFile& lora : listed(o.loras)) {
            const auto told = ModelFiles(lora.path, lora_kind, ltx_naming()).metadata(key);
            const double value = told ? std::strtod(told->c_str(), nullptr) : 1;
            const int64_t own = value >= 1 && value <= 64 ? std::llround(value) : 1;
            if (own == 1 || own == found) continue;
            if (found != 1)
                throw Error(ErrorCode::invalid_request,
                            std::string("[lora] the LoRAs were made for references of different kinds (") + key + " " +
                                std::to_string(found) + " and " + std::to_string(own) + "); give one of them");
            found = own;
        }
        return found;
    };
    return {factor(o.reference_downscale, "reference_downscale_factor"),
            factor(o.reference_temporal, "reference_temporal_scale_factor")};
}

const std::vector<LoraFile>& loras_of_second(const ClipOptions& o) {
    return listed(o.loras_stage2 ? o.loras_stage2 : o.loras);
}

// A stage, and what it has to know before.
void add_stage(ClipPlan& plan, const Request& request, SampleSettings settings, std::vector<LoraFile> loras) {
    // What is given is not guided.
    if (!plan.free.video) settings.guidance.video = {};
    if (!plan.free.audio) settings.guidance.audio = {};
    const bool first = plan.of(StepKind::denoise).empty();
    if (!request.images.empty() || !request.film.empty() || (!request.references.empty() && first))
        plan.steps.push_back({StepKind::encode_pictures, {Part::video_encoder}, settings, {}, ""});
    plan.steps.push_back({StepKind::denoise, {Part::transformer}, settings, std::move(loras), ""});
}

}  // namespace

ClipPlan Pipeline::resolve(const Request& request) const {
    files();  // throws
    sdltx::check(request.options);
    const Task task = task_of(request);
    ClipOptions options = with_material(request, task);
    if (task == Task::sound && !options.num_frames && !options.duration) {
        const SampleSettings usual = resolve_stage(options);
        options.num_frames = frames_for(request.sound, usual.frame_rate, usual.num_frames);
    }
    ExtensionPlan extension;
    if (task == Task::extend) {
        const SampleSettings usual = resolve_stage(options);
        extension = extension_of(options, request.film, usual.frame_rate, usual.num_frames);
        options.num_frames = extension.window;
    }
    const Recipe& recipe = recipe_of(options, preset_of(options, *info_.preset, info_.version));
    const bool one_stage =
        task == Task::retake || task == Task::foley || task == Task::sound_alone || task == Task::extend;
    if (recipe.two_stages && one_stage)
        throw Error(ErrorCode::invalid_request,
                    "[recipe] " + std::string(name_of(task)) + " has one stage; leave out " +
                        (listed(options.upscaler).empty() ? "the recipe " : "the upscaler of ") + recipe.name);
    ClipPlan plan{&recipe, request.options.recipe.has_value(), resolve_stage(options)};
    plan.task = task;
    plan.extension = extension;
    plan.follows = !request.references.empty() || task == Task::dub;
    plan.free = freedom_of(request, task);
    if (plan.follows) plan.factors = factors_of(options);
    const auto duration = duration_of(options);
    plan.length_by_prompt = duration && duration->by_prompt;
    if (recipe.wants_distilled_lora()) {
        if (options.distilled_lora)
            plan.distilled_lora = *options.distilled_lora;
        else if (!any_distilled(listed(options.loras)) && !any_distilled(loras_of_second(options)))
            plan.distilled_lora = find_distilled_lora();
        if (plan.asked && plan.distilled_lora.empty() && !any_distilled(loras_of_second(options)))
            lacks(recipe, "the distilled LoRA of the checkpoint");
    }
    std::vector<Part> of_prompts{Part::text_encoder, Part::text_projection};
    if (plan.length_by_prompt) of_prompts.push_back(Part::duration_head);
    plan.steps.push_back({StepKind::encode_prompts, of_prompts, plan.whole, {}, ""});
    if (recipe.two_stages)
        plan_two_stages(request, options, plan);
    else
        add_stage(plan, request, plan.whole, listed(options.loras));
    if (!plan.free.video) plan.whole.guidance.video = {};
    if (!plan.free.audio) plan.whole.guidance.audio = {};
    plan.result_frames =
        request.film.empty() ? plan.whole.num_frames : std::min(plan.whole.num_frames, request.film.frames.num_frames);
    if (task == Task::extend) plan.result_frames = request.film.frames.num_frames + extension.wanted;
    if (hears_given(plan, request))
        plan.steps.insert(plan.steps.begin() + 1, {StepKind::encode_sound, {Part::audio_encoder}, plan.whole, {}, ""});
    // What is given comes out as it is.
    if (plan.whole.video && plan.free.video)
        plan.steps.push_back({StepKind::decode_pictures, {Part::video_decoder}, plan.whole, {}, ""});
    if (plan.free.audio)
        plan.steps.push_back({StepKind::decode_sound, {Part::audio_decoder, Part::vocoder}, plan.whole, {}, ""});
    return plan;
}

ClipPlan Pipeline::settle_length(const ClipPlan& plan, Request& request, const Context& context) {
    if (!plan.length_by_prompt) return plan;
    ClipOptions& o = request.options;
    const SampleSettings& whole = plan.whole;
    const std::vector<std::string> upscalers = plan.upscalers();
    const int64_t unit = 8 * (upscalers.empty() ? 1 : factor_of(upscalers).frames);
    const double seconds = duration(context);
    o.num_frames = frames_of_duration(seconds, whole.frame_rate, unit);
    log(20, "[sample] the prompt asks for " + spell_number(std::round(seconds * 100) / 100) +
                " seconds: " + std::to_string(*o.num_frames) + " frames");
    o.duration.reset();
    o.seed = whole.seed;  // that was drawn stays
    ClipPlan settled = resolve(request);
    settled.enhanced = plan.enhanced;
    return settled;
}

void Pipeline::plan_two_stages(const Request& request, const ClipOptions& options, ClipPlan& plan) const {
    const Recipe& recipe = *plan.recipe;
    std::vector<std::string> upscalers = listed(options.upscaler);
    if (upscalers.empty()) upscalers = {find_upscaler()};
    if (upscalers.front().empty()) lacks(recipe, "a spatial upscaler");
    const TwoRequests requests = two_stages(options, plan.whole, factor_of(upscalers));
    const auto loras = [&](const std::vector<LoraFile>& asked, float strength) {
        return loras_of_stage(asked, plan.distilled_lora, strength);
    };
    plan.whole = resolve_stage(requests.whole);
    const SampleSettings first = resolve_stage(requests.first);
    add_stage(plan, request, first, loras(listed(options.loras), recipe.first_strength));
    for (const std::string& file : upscalers)
        plan.steps.push_back({StepKind::upscale, {Part::video_decoder}, first, {}, file});
    add_stage(plan, request, resolve_stage(requests.second),
              loras(follows_in_second(plan) || !plan.follows || options.loras_stage2 ? loras_of_second(options)
                                                                                     : std::vector<LoraFile>{},
                    recipe.second_strength));
    plan.whole.sigmas = first.sigmas;
    plan.whole.schedule = first.schedule;
}

std::vector<std::string> Pipeline::doubts(const ClipPlan& plan) const {
    files();  // throws
    const bool own_defaults = info_.defaults.num_inference_steps.has_value();
    std::vector<std::string> lines = sdltx::doubts(plan.of(StepKind::denoise).front()->settings, *info_.preset,
                                                   own_defaults, info_.distilled_told || plan.asked);
    const Recipe& recipe = *plan.recipe;
    if (recipe.wants_distilled_lora() && plan.distilled_lora.empty() && !own_defaults &&
        !any_distilled(plan.of(StepKind::denoise).back()->loras))
        lines.push_back("[recipe] " + std::string(recipe.name) +
                        " refines with the distilled LoRA of the checkpoint, which is not among the files; without it "
                        "the second stage leaves noise");
    return lines;
}

Pipeline::Inputs Pipeline::inputs_of(const ClipPlan& plan, const Step& stage, const Job::Given& given,
                                     const Array& sound) {
    Inputs inputs;
    inputs.conditions = given.images;
    inputs.loras = stage.loras;
    inputs.video.appends_first_frame = plan.recipe->appends_first_frame;
    inputs.keeps_text = stage.keeps_text;
    const Freedom& free = plan.free;
    const Geometry& g = stage.settings.latent;
    const auto give = [&](Spec& spec, const Array& latents, bool is_free, const Positions& positions,
                          const std::vector<int64_t>& cells, const std::vector<float>& mask) {
        if (latents.empty()) return;
        spec.initial = latents;
        spec.frozen = !is_free;
        if (spec.frozen || free.everywhere) return;
        Array kept{cells, within(positions, free.from, free.to)};
        for (size_t i = 0; i < kept.data.size(); ++i) kept.data[i] = 1 - kept.data[i] * (mask.empty() ? 1 : mask[i]);
        spec.kept.push_back({latents, 0, 1, std::move(kept)});
    };
    inputs.video.references = given.references;
    inputs.video.kept = given.kept;
    inputs.audio.kept = given.kept_sound;
    if (plan.task == Task::extend) return inputs;
    if (plan.task == Task::dub) {  // a film and a sound to follow, not to keep
        inputs.audio.sound_before = sound;
        return inputs;
    }
    give(inputs.video, given.film, free.video, video_positions(g.frames, g.height, g.width, g.frame_rate),
         {g.frames, g.height, g.width}, given.mask);
    give(inputs.audio, sound, free.audio, audio_positions(g.audio_frames), {g.audio_frames}, {});
    return inputs;
}

namespace {

const Step* first_of(const ClipPlan& plan, StepKind kind) {
    const auto all = plan.of(kind);
    return all.empty() ? nullptr : all.front();
}

}  // namespace

std::vector<Request::Reference> references_of(const ClipPlan& plan, const Step& stage, const Request& request) {
    if (plan.task == Task::dub) {
        Request::Reference film;
        film.film.frames = {request.film.frames.num_frames, request.film.frames.height, request.film.frames.width, {}};
        return {film};
    }
    return &stage == plan.of(StepKind::denoise).front() || &stage == first_of(plan, StepKind::encode_pictures)
               ? request.references
               : std::vector<Request::Reference>{};
}

ReferenceShape shape_of_reference(const ClipPlan& plan, const Step& stage, const Request::Reference& reference) {
    const SampleSettings& s = stage.settings;
    const int64_t down = plan.factors.downscale;
    check_reference_size(s.width, s.height, down, plan.recipe->two_stages);
    ReferenceShape shape;
    shape.frames = reference_frames(reference, s.num_frames, plan.factors.temporal);
    shape.height = s.height / down;
    shape.width = s.width / down;
    shape.cells = {static_cast<int64_t>(shape.frames.size() - 1) / 8 + 1, shape.height / 32, shape.width / 32};
    return shape;
}

Pipeline::Inputs Pipeline::sizes_of(const ClipPlan& plan, const Step& stage, const Request& request) const {
    const Geometry& g = stage.settings.latent;
    const auto zeros = [](std::vector<int64_t> shape) {
        int64_t count = 1;
        for (int64_t n : shape) count *= n;
        return Array{std::move(shape), std::vector<float>(static_cast<size_t>(count))};
    };
    Job::Given given{pictures_of_stage(plan, stage, request.images), {}};
    const int64_t channels = config_.transformer ? config_.transformer->video.in_channels : 0;
    if (request.mask.num_frames)  // as many as the others, in turn
        for (int64_t i = 0; i < g.frames * g.height * g.width; ++i) given.mask.push_back(static_cast<float>(i % 2));
    if (plan.task == Task::extend && channels) {
        const int64_t seen = plan.extension.context + (plan.extension.before ? 0 : 1);
        given.kept.push_back({zeros({channels, seen, g.height, g.width})});
        if (hears_given(plan, request) && config_.audio)
            given.kept_sound.push_back({zeros({config_.audio->channels, 1, config_.audio->mel_bins})});
    }
    if (!request.film.empty() && channels) given.film = zeros({channels, g.frames, g.height, g.width});
    for (const Request::Reference& reference : references_of(plan, stage, request)) {
        const ReferenceShape s = shape_of_reference(plan, stage, reference);
        std::optional<std::vector<float>> attention;
        if (request.options.reference_attention.value_or(1) != 1 || reference.attention.num_frames)
            attention.emplace(static_cast<size_t>(s.cells[0] * s.cells[1] * s.cells[2]), 0.5f);
        given.references.push_back({zeros({channels, s.cells[0], s.cells[1], s.cells[2]}), plan.factors.downscale,
                                    plan.factors.temporal, reference.strength, attention});
    }
    Array sound;
    if (hears_given(plan, request) && config_.audio) {
        const Waveform& film = request.film.sound;
        const int64_t frames =
            plan.task == Task::dub ? film.samples.dim(1) * 25 / film.sample_rate + 1 : g.audio_frames;
        sound = zeros({config_.audio->channels, frames, config_.audio->mel_bins});
    }
    return inputs_of(plan, stage, given, sound);
}

void Pipeline::check_options(const ClipPlan& plan) const {
    if (plan.length_by_prompt) require({Part::duration_head});
    if (!plan.whole.slots.empty() && config_.transformer && !config_.transformer->keyframes_embedding) refuse_slots();
}

void Pipeline::check_inputs(const ClipPlan& plan, const Request& request) {
    check_options(plan);
    if (writes(request)) writing_prompt(idea_of(request), request.options.enhance_system.value_or(""));
    check_freedom(plan);
    if (!request.film.empty()) require({Part::video_encoder});
    if (plan.has(StepKind::encode_sound)) require({Part::audio_encoder});
    if (plan.follows) {
        require({Part::video_encoder});
        for (const Step* stage : plan.of(StepKind::denoise))
            for (const Request::Reference& reference : references_of(plan, *stage, request))
                shape_of_reference(plan, *stage, reference);
    }
    // Of a length that is still open, frames are looked at once it is known.
    if (!plan.length_by_prompt) {
        check_frames(request.images, plan.whole.num_frames);
        for (const Step* stage : plan.of(StepKind::denoise))
            check_frames(pictures_of_stage(plan, *stage, request.images), stage->settings.num_frames);
    }
    for (const Condition& c : request.images)
        if (c.latent.empty()) require({Part::video_encoder});
    if (plan.recipe->appends_first_frame && request.images.empty())
        throw Error(ErrorCode::invalid_request,
                    "[recipe] " + std::string(plan.recipe->name) + " needs pictures to go between; give one or more");
    if (request.refines() && plan.of(StepKind::denoise).size() > 1)
        throw Error(ErrorCode::invalid_request,
                    "[sample] a clip that is refined has one stage; leave out initial or upscaler");
    for (const Step* stage : plan.of(StepKind::denoise)) {
        if (!stage->loras.empty()) require({Part::transformer});
        loras(stage->loras);
    }
}

void Pipeline::check(const ClipPlan& plan, const Request& request) {
    const Turn turn(*this);
    std::vector<LoraFile> wanted;
    for (const Step* stage : plan.of(StepKind::denoise))
        wanted.insert(wanted.end(), stage->loras.begin(), stage->loras.end());
    keep_loras(wanted);
    check_inputs(plan, request);
}

std::vector<Condition> Pipeline::encoded(std::vector<Condition> pictures, const SampleSettings& settings,
                                         const Progress& progress) {
    check_frames(pictures, settings.num_frames);
    // Whole, as the reference does it: tiles of a picture would change its latents where they meet.
    const int64_t height = settings.latent.height * 32, width = settings.latent.width * 32;
    for (Condition& c : pictures) {
        if (c.latent.empty()) {
            const Array fitted = fit_image(c.image, height, width);
            c.latent = encode_video(footage_of(fitted), untiled, progress);
        }
        c.image = {};
    }
    return pictures;
}

Latents Pipeline::denoise(const Context& context, const Context* negative, const Job& job, const Progress& progress,
                          const OnStep& on_step, const std::function<void(const Step&)>& on_begin) {
    Latents latents;
    size_t stage = 0;
    for (const Step& step : job.plan.steps) {
        if (step.kind != StepKind::upscale && step.kind != StepKind::denoise) continue;
        if (on_begin) on_begin(step);
        if (step.kind == StepKind::upscale) {
            latents = upsample(latents, step.upscaler, progress);
            continue;
        }
        const bool first = stage == 0;
        Inputs inputs =
            inputs_of(job.plan, step,
                      stage < job.given.size() ? job.given[stage]
                                               : Job::Given{pictures_of_stage(job.plan, step, job.request.images), {}},
                      job.given_sound);
        const Noise& noise = first ? job.request.noise : job.second_noise;
        if (!first) latents.audio = with_frames(latents.audio, step.settings.latent.audio_frames);
        const Latents& initial = first ? job.request.initial : latents;
        inputs.video.noise = noise.video;
        inputs.audio.noise = noise.audio;
        if (inputs.video.initial.empty()) inputs.video.initial = initial.video;
        if (inputs.audio.initial.empty()) inputs.audio.initial = initial.audio;
        if (!first && job.plan.task == Task::dub) {  // the words are said; the picture goes on with them
            inputs.audio.frozen = true;
            inputs.audio.sound_before = initial.audio;
        }
        inputs.video.slots = initial.keyframes;
        Latents result = sample(context, negative, step.settings, inputs, progress, on_step);
        if (!first && job.plan.recipe->keeps_first_sound) result.audio = std::move(latents.audio);
        latents = std::move(result);
        ++stage;
    }
    latents.keyframes = {};
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
    const ModelFiles files(upscaler, upscaler_kind, ltx_naming());
    LatentUpsampler network(files, *workspace_, static_cast<int64_t>(mean.size()));
    Latents out = latents;
    if (out.video.shape.size() != 4 || out.video.dim(0) != static_cast<int64_t>(mean.size()))
        throw Error(ErrorCode::invalid_request, "[upscaler] expected video latents of (" + std::to_string(mean.size()) +
                                                    ", frames, height, width), got " + spell_shape(out.video.shape));
    check_video_latents(out.video.dim(1), out.video.dim(2), out.video.dim(3));
    const auto [frames, height, width] = network.result({out.video.dim(1), out.video.dim(2), out.video.dim(3)});
    check_video_latents(frames, height, width);
    const MemoryUse use = network.measure({out.video.dim(1), out.video.dim(2), out.video.dim(3)});
    workspace_->release();  // what the stage before has computed in
    const Hold hold(*this, {&network.weights()}, progress, use);
    const auto upsampled = [&](Array video) {
        const auto each = [&](const auto& change) {
            const size_t of_channel = video.data.size() / mean.size();
            for (size_t i = 0; i < video.data.size(); ++i) change(video.data[i], i / of_channel);
        };
        each([&](float& x, size_t c) { x = x * deviation[c] + mean[c]; });
        video = network.upsample(video, tracing());
        each([&](float& x, size_t c) { x = (x - mean[c]) / deviation[c]; });
        return video;
    };
    report(progress, "upscale", 0, 1);
    out.video = upsampled(std::move(out.video));
    // Pictures are no frames of one another.
    if (!out.keyframes.empty() && network.kind() != LatentUpsampler::Kind::time_2) {
        std::vector<Array> large;
        for (int64_t i = 0; i < out.keyframes.dim(1); ++i) large.push_back(upsampled(latent_frame(out.keyframes, i)));
        out.keyframes = joined_frames(large);
    }
    report(progress, "upscale", 1, 1);
    if (network.kind() == LatentUpsampler::Kind::time_2) out.frame_rate *= 2;
    return out;
}

}  // namespace sdltx
