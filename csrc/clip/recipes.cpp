#include "recipes.h"

#include <algorithm>
#include <cctype>

#include "base/named.h"
#include "ltxv/schedule.h"

namespace sdltx {

const std::vector<Recipe>& all_recipes() {
    static const std::vector<Recipe> recipes = {
        // name, purpose, distilled, preset, two stages, strengths, appends, keeps sound
        {"distilled", "8 steps of a pass each: the fastest", true, "distilled", false, 0, 0, false, false},
        {"distilled-two-stage", "the same at half the size, then upscaled and refined in 3 steps: fast at large sizes",
         true, "distilled", true, 0, 0, false, false},
        {"guided", "away from a negative prompt and from what goes wrong, up to four passes a step", false, "", false,
         0, 0, false, false},
        {"guided-two-stage", "guided at half the size, then upscaled and refined with the distilled LoRA", false, "",
         true, 0, 1, false, true},
        {"hq", "guided with the second-order sampler and the distilled LoRA in both stages: the finest detail", false,
         "hq", true, 0.25f, 0.5f, false, true},
        {"keyframes", "from picture to picture: guided-two-stage where every picture, the first too, is a keyframe",
         false, "", true, 0, 1, true, false},
    };
    return recipes;
}

std::vector<std::string> recipe_names() { return names_of(all_recipes()); }

std::vector<std::string> Recipe::needs() const {
    std::vector<std::string> lines{distilled ? "a distilled checkpoint" : "a checkpoint that is not distilled"};
    if (two_stages) lines.emplace_back("a spatial upscaler");
    if (wants_distilled_lora()) lines.emplace_back("the distilled LoRA of the checkpoint");
    if (appends_first_frame) lines.emplace_back("pictures");
    return lines;
}

namespace {

const Recipe& recipe_named(const std::string& name) { return row_named(all_recipes(), name, "recipe"); }

}  // namespace

// What is wrong with a recipe whatever the model is.
void check_recipe(const ClipOptions& o) {
    if (!o.recipe) return;
    const Recipe& r = recipe_named(*o.recipe);
    const auto refuse = [&](const std::string& what) {
        throw Error(ErrorCode::invalid_request, "[recipe] " + std::string(r.name) + " " + what);
    };
    if (o.preset && preset_named(*o.preset).distilled != r.distilled)
        refuse("does not go with the preset " + *o.preset + "; leave one of them out");
    if (!r.two_stages && !listed(o.upscaler).empty())
        refuse("has one stage; leave out the upscaler, or use " + std::string(r.name) + "-two-stage");
    if (!r.two_stages && o.loras_stage2) refuse("has one stage; leave out the LoRAs of a second");
    if (!r.wants_distilled_lora() && o.distilled_lora)
        refuse("has no use for the distilled LoRA; give it as any other LoRA to use it all the same");
}

const Recipe& recipe_of(const ClipOptions& o, const Preset& preset) {
    const auto fitting = [&]() -> const Recipe& {
        const bool two = !listed(o.upscaler).empty();
        if (preset.distilled) return recipe_named(two ? "distilled-two-stage" : "distilled");
        if (!two) return recipe_named("guided");
        return recipe_named(preset.name == std::string("hq") ? "hq" : "guided-two-stage");
    };
    ClipOptions named = o;
    named.recipe = o.recipe ? *o.recipe : fitting().name;
    check_recipe(named);
    return recipe_named(*named.recipe);
}

const Preset& preset_of(const ClipOptions& o, const Preset& fitting, const std::string& version) {
    if (o.preset) return preset_named(*o.preset, version);
    if (!o.recipe) return fitting;
    const Recipe& r = recipe_named(*o.recipe);
    if (*r.preset) return r.distilled == fitting.distilled && r.distilled ? fitting : preset_named(r.preset, version);
    return fitting.distilled ? preset_named("dev", version) : fitting;
}

TwoRequests two_stages(const ClipOptions& options, const SampleSettings& alone, const UpscaleFactor& factor) {
    TwoRequests of{options, {}, {}};
    // A first stage has whole cells, and an even number of them where halves are taken of what three make.
    const int64_t up = factor.numerator, down = factor.denominator, unit = 32 * up;
    const auto rounded = [&](int64_t side) { return std::max<int64_t>(1, (side + unit / 2) / unit) * unit; };
    of.whole.width = options.width.value_or(rounded(alone.width * up / down));
    of.whole.height = options.height.value_or(rounded(alone.height * up / down));
    of.whole.num_frames = options.num_frames.value_or((alone.num_frames - 1) * factor.frames + 1);
    of.whole.frame_rate = options.frame_rate.value_or(alone.frame_rate * static_cast<double>(factor.frames));
    if (const auto duration = duration_of(options); duration && !duration->by_prompt)
        of.whole.num_frames = frames_nearest(duration->seconds, *of.whole.frame_rate, 8 * factor.frames);
    of.whole.duration.reset();
    of.whole.seed = alone.seed;
    of.first = of.second = of.whole;

    const auto smaller = [&](const char* name, int64_t side) {
        if (side % unit)
            throw Error(ErrorCode::invalid_request, std::string("[two-stage] ") + name + " " + std::to_string(side) +
                                                        " cannot come of these upscalers; use a multiple of " +
                                                        std::to_string(unit) + ", such as " +
                                                        std::to_string(rounded(side)));
        return side / up * down;
    };
    of.first.width = smaller("width", *of.whole.width);
    of.first.height = smaller("height", *of.whole.height);
    for (int64_t i = factor.frames; i > 1; i /= 2) {
        if (*of.first.num_frames % 16 != 1)
            throw Error(ErrorCode::invalid_request, "[two-stage] " + std::to_string(*of.whole.num_frames) +
                                                        " frames cannot come of these upscalers; use a multiple of " +
                                                        std::to_string(8 * factor.frames) + ", plus 1");
        of.first.num_frames = (*of.first.num_frames + 1) / 2;
        of.first.frame_rate = *of.first.frame_rate / 2;
    }

    ClipOptions& second = of.second;
    for_each_option([&](const Option& option, auto field) {
        if (!option.inherited) (second.*field).reset();
    });
    const std::vector<float> levels = distilled_stage_2_sigmas();
    second.sigmas.emplace(levels.begin(), levels.end());
    // Who names the preset's own, such as a clip that is made again, means both of its samplers.
    const Preset& preset = preset_named(alone.preset);
    if (alone.sampler == preset.sampler) second.sampler = name_of(preset.second_sampler);
    second.guidance_scale = second.audio_guidance_scale = 1;
    second.stg_scale = second.audio_stg_scale = 0;
    second.modality_scale = second.audio_modality_scale = 1;
    second.guidance_rescale = second.audio_guidance_rescale = 0;
    second.guidance_skip_steps = second.audio_guidance_skip_steps = 0;
    return of;
}

bool is_distilled_lora(const std::string& path) {
    std::string name = path.substr(path.find_last_of('/') + 1);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return name.find("distill") != std::string::npos;
}

std::vector<LoraFile> loras_of_stage(std::vector<LoraFile> asked, const std::string& distilled_lora, float strength) {
    const auto same = [&](const LoraFile& f) { return f.path == distilled_lora; };
    if (!distilled_lora.empty() && strength != 0 && std::none_of(asked.begin(), asked.end(), same))
        asked.push_back({distilled_lora, strength});
    return asked;
}

}  // namespace sdltx
