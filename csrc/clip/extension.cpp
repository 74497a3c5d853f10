#include "extension.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ltxv/mel.h"

namespace sdltx {

namespace {

constexpr double token_seconds = 0.04, fade_seconds = 0.02, half_window_of_analysis = 0.032;
constexpr int made_rate = 48000;

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::invalid_request, "[extend] " + what); }

}  // namespace

ExtensionPlan extension_of(const ClipOptions& o, const Film& film, double frame_rate, int64_t usual) {
    constexpr int64_t usual_context = 57;
    ExtensionPlan plan;
    plan.before = o.extend_before.has_value();
    const double seconds =
        seconds_of(plan.before ? "extend_before" : "extend", plan.before ? *o.extend_before : *o.extend);
    plan.wanted = std::llround(seconds * frame_rate);
    if (plan.wanted < 1) refuse("less than a frame is nothing; use more seconds");
    const int64_t have = film.frames.num_frames, context = o.extend_context.value_or(usual_context);
    if (context % 8 != 1) refuse("extend_context is 8 k + 1 frames, such as 9, 25 or 57");
    plan.context = std::min((context - 1) / 8, plan.before ? have / 8 : (have - 1) / 8);
    if (plan.before && plan.context < 1) refuse("the film has " + std::to_string(have) + " frames; 8 are needed");
    const int64_t needed = (plan.seen() + plan.wanted + 6) / 8 * 8 + 1;
    plan.window = o.num_frames.value_or(std::max(std::min(usual, needed), (plan.seen() + 14) / 8 * 8 + 1));
    if (plan.window % 8 != 1 || plan.made() < 1)
        refuse("windows of " + std::to_string(plan.window) + " frames leave no room for new ones beside " +
               std::to_string(plan.seen()) + " of the film; use more frames, or a shorter extend_context");
    return plan;
}

Extension::Extension(const ExtensionPlan& plan, Frames film, Waveform sound, double frame_rate, int64_t audio_frames)
    : plan_(plan),
      film_(std::move(film)),
      sound_(std::move(sound)),
      frame_rate_(frame_rate),
      audio_frames_(audio_frames),
      left_(plan.wanted) {}

int64_t Extension::samples(double seconds) const { return std::llround(seconds * sound_.sample_rate); }

Frames Extension::pictures() const {
    const int64_t size = film_.height * film_.width * 3, seen = plan_.seen(),
                  first = plan_.before ? 0 : film_.num_frames - seen;
    Frames found{seen, film_.height, film_.width, {}};
    const auto from = film_.data.begin() + first * size;
    // The encoder wants a first picture that stands alone.
    if (plan_.before) {
        found.data.assign(from, from + size);
        ++found.num_frames;
    }
    found.data.insert(found.data.end(), from, from + seen * size);
    return found;
}

Kept Extension::kept(const Array& latents) const {
    if (!plan_.before) return {latents, 0};
    std::vector<Array> frames;
    for (int64_t i = 1; i < latents.dim(1); ++i) frames.push_back(latent_frame(latents, i));
    return {joined_frames(frames), (plan_.window - 1) / 8 + 1 - plan_.context};
}

int64_t Extension::tokens_before() const {
    return static_cast<int64_t>(std::ceil(seconds(plan_.made()) / token_seconds - 1e-9));
}

Waveform Extension::sound() const {
    Waveform heard{{}, sound_.sample_rate};
    if (sound_.samples.empty()) return heard;
    const int64_t length = sound_.samples.dim(1);
    int64_t first = 0, count = 0;
    if (plan_.before) {
        first = samples(token_seconds * static_cast<double>(tokens_before()) - seconds(plan_.made()));
        count = std::min(length - first, samples(seconds(plan_.seen()) + token_seconds));
    } else {
        first = samples(seconds(film_.num_frames - plan_.seen()));
        count = length - first;
    }
    // Shorter than what the analysis looks at, it says nothing.
    if (count < samples(0.1)) return heard;
    heard.samples = {{2, count}, {}};
    for (int64_t c = 0; c < 2; ++c) {
        const auto from = sound_.samples.data.begin() + c * length + first;
        heard.samples.data.insert(heard.samples.data.end(), from, from + count);
    }
    return heard;
}

Kept Extension::kept_sound(const Array& latents) const {
    int64_t first = 0, count = latents.dim(1);
    if (plan_.before) {
        first = tokens_before();
        count = std::min(count, audio_frames_ - first);
    } else {
        const double heard =
            static_cast<double>(sound_.samples.dim(1)) / sound_.sample_rate - seconds(film_.num_frames - plan_.seen());
        count = std::min(count, static_cast<int64_t>(std::floor(heard / token_seconds + 1e-9)) + 1);
        // The last one looks past the end.
        if (static_cast<double>(count - 1) * token_seconds + half_window_of_analysis > heard) --count;
        count = std::min(count, audio_frames_ - 1);
    }
    return {with_frames(latents, std::max<int64_t>(count, 1)), first};
}

void Extension::add_sound(const Waveform& made, int64_t taken) {
    if (sound_.samples.empty()) {  // a silent film
        sound_.sample_rate = made_rate;
        const int64_t length = samples(seconds(film_.num_frames - taken));
        sound_.samples = {{2, length}, std::vector<float>(static_cast<size_t>(2 * length))};
    }
    const Array there = resample(made.samples, made.sample_rate, sound_.sample_rate);
    const int64_t old = sound_.samples.dim(1), fade = samples(fade_seconds), have = there.dim(1);
    Array whole;
    const auto mixed = [&](int64_t c, int64_t i_old, int64_t i_new, double share) {
        const float a = sound_.samples.data[static_cast<size_t>(c * old + i_old)],
                    b = i_new < have ? there.data[static_cast<size_t>(c * have + i_new)] : a;
        return static_cast<float>(share * b + (1 - share) * a);
    };
    if (plan_.before) {
        // New sound up to where the film begins in the window, and into it while it fades.
        const int64_t start = samples(seconds(plan_.made())), more = samples(seconds(taken));
        whole.shape = {2, more + old};
        for (int64_t c = 0; c < 2; ++c) {
            for (int64_t i = start - more; i < start; ++i)
                whole.data.push_back(i < have ? there.data[static_cast<size_t>(c * have + i)] : 0.0f);
            for (int64_t i = 0; i < old; ++i)
                whole.data.push_back(
                    i < fade ? mixed(c, i, start + i, 1 - static_cast<double>(i) / static_cast<double>(fade))
                             : sound_.samples.data[static_cast<size_t>(c * old + i)]);
        }
    } else {
        const int64_t start = samples(seconds(film_.num_frames - taken - plan_.seen())),
                      end = std::min(start + have, samples(seconds(film_.num_frames)));
        whole.shape = {2, std::max(old, end)};
        for (int64_t c = 0; c < 2; ++c)
            for (int64_t i = 0; i < whole.dim(1); ++i) {
                const double share = static_cast<double>(i - (old - fade)) / static_cast<double>(fade);
                whole.data.push_back(i >= old    ? there.data[static_cast<size_t>(c * have + i - start)]
                                     : share > 0 ? mixed(c, i, i - start, share)
                                                 : sound_.samples.data[static_cast<size_t>(c * old + i)]);
            }
    }
    sound_.samples = std::move(whole);
}

void Extension::add(const Frames& window, const Waveform& made) {
    const int64_t size = film_.height * film_.width * 3, taken = std::min(left_, plan_.made()),
                  first = plan_.before ? plan_.made() - taken : plan_.seen();
    const auto from = window.data.begin() + first * size;
    film_.data.insert(plan_.before ? film_.data.begin() : film_.data.end(), from, from + taken * size);
    film_.num_frames += taken;
    left_ -= taken;
    if (!made.samples.empty()) add_sound(made, taken);
}

Waveform Extension::whole_sound() const {
    if (sound_.samples.empty()) return sound_;
    return stereo(sound_, seconds(film_.num_frames));
}

}  // namespace sdltx
