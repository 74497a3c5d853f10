#include "material.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ltxv/image.h"
#include "ltxv/mel.h"

namespace sdltx {

namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::invalid_request, "[material] " + what); }

constexpr const char* retake_names[] = {"both", "picture", "sound"};

bool given(const std::optional<bool>& flag) { return flag.value_or(false); }

}  // namespace

const std::vector<TaskRow>& all_tasks() {
    static const std::vector<TaskRow> rows = {
        {Task::text, "text to clip", "pictures and sound from a prompt, and from pictures if there are any",
         "a prompt"},
        {Task::sound_alone, "text to sound", "sound without pictures", "--no-video"},
        {Task::sound, "sound to clip", "pictures for a sound, such as lips for a voice; the sound stays as it is",
         "--audio FILE"},
        {Task::retake, "retake", "some seconds, or what a mask shows, of a film made anew: pictures, sound or both",
         "--video FILE --retake A:B or --mask FILE"},
        {Task::extend, "extend", "a film that goes on, or begins earlier, with its sound",
         "--video FILE --extend S or --extend-before S"},
        {Task::foley, "foley", "sound for the pictures of a film", "--video FILE --foley"},
        {Task::dub, "dub", "other words in a film, by the voice in it", "--video FILE --dub, a LoRA for dubbing"},
        {Task::reference, "reference",
         "a clip that follows films: outlines, depth, poses, tracks, or a film to be changed",
         "--reference FILE, a LoRA for such references"},
    };
    return rows;
}

const char* name_of(Task task) { return all_tasks()[static_cast<size_t>(task)].name; }

std::vector<std::string> retake_parts() { return {std::begin(retake_names), std::end(retake_names)}; }

void check_material(const ClipOptions& o) {
    if (o.retake && (o.retake->size() != 2 || !((*o.retake)[0] < (*o.retake)[1])))
        refuse("retake is two times in seconds, the earlier first, such as 1.5:3");
    if (o.retake.has_value() + given(o.foley) + given(o.dub) + o.extend.has_value() + o.extend_before.has_value() > 1)
        refuse("retake, extend, extend_before, foley and dub each say what to do with a film; give one of them");
    if (o.extend) seconds_of("extend", *o.extend);
    if (o.extend_before) seconds_of("extend_before", *o.extend_before);
    if (!o.video.value_or(true) && !o.audio.value_or(true)) refuse("a clip without pictures and sound is nothing");
}

Task task_of(const Request& r) {
    const ClipOptions& o = r.options;
    const bool film = !r.film.empty(), sound = !r.sound.samples.empty(), masked = r.mask.num_frames > 0;
    if (film && sound)
        refuse("a film and a sound are given; the film's sound is the one that counts, leave out the other");
    if (film && !(r.film.frame_rate > 0 && r.film.frame_rate <= 1000))
        refuse("the film has " + spell_number(r.film.frame_rate) + " frames per second; use above 0 and at most 1000");
    const bool extends = o.extend || o.extend_before;
    if (o.extend_context && !extends) refuse("extend_context is of extend or extend_before");
    if ((o.retake || given(o.foley) || given(o.dub) || extends) && !film)
        refuse(std::string(o.retake         ? "retake"
                           : extends        ? "extend"
                           : given(o.foley) ? "foley"
                                            : "dub") +
               " needs a film; give one");
    const bool follows = !r.references.empty();
    if (!follows && (o.reference_attention || ((o.reference_downscale || o.reference_temporal) && !given(o.dub))))
        refuse("there is no reference; give one, or leave out what is said of it");
    if (follows && !o.video.value_or(true)) refuse("sound alone has no references; leave them out");
    if (follows && film) refuse("a film and references do not go together; leave out one of them");
    if (follows && r.refines()) refuse("initial latents and references do not go together");
    for (const Request::Reference& reference : r.references)
        if (!(reference.strength >= 0 && reference.strength <= 1))
            refuse("the strength of a reference is between 0 and 1");
    if (masked && !film) refuse("a mask needs a film; give one");
    if (masked && (given(o.foley) || given(o.dub) || extends))
        refuse("a mask is for a retake; leave it out, or what else is asked for");
    if (o.retake_of && !o.retake && !masked)
        refuse("retake_of needs retake, the times between which the film is made anew");
    if (given(o.decode_everywhere) && !o.retake && !masked) refuse("decode_everywhere is for a retake");
    const bool alone = !o.video.value_or(true), silent = !o.audio.value_or(true);
    if ((film || sound) && alone) refuse("sound alone is made from a prompt; leave out the film or the sound");
    if ((film || sound) && r.refines()) refuse("initial latents and a film or a sound do not go together");
    if (alone && !r.images.empty()) refuse("sound alone has no pictures; leave them out");
    if (o.retake || masked) {
        const std::string of = o.retake_of.value_or(masked ? "picture" : "both");
        if (masked && of == "sound") refuse("a mask tells where pictures are made anew; leave it out, or retake_of");
        if (silent && of == "sound") refuse("retake_of sound makes sound; leave out audio = false");
        return Task::retake;
    }
    if (extends) {
        if (!r.images.empty()) refuse("pictures belong to a clip of known length; leave them out to extend a film");
        if (o.duration) refuse("extend tells how long it becomes; leave out duration");
        return Task::extend;
    }
    if (given(o.foley)) {
        if (silent) refuse("foley makes sound; leave out audio = false");
        if (!r.images.empty()) refuse("foley makes no pictures; leave those that are given out");
        return Task::foley;
    }
    if (given(o.dub)) {
        if (silent || r.film.sound.samples.empty()) refuse("dub needs the sound of the film, and makes other");
        return Task::dub;
    }
    if (film) refuse("nothing says what to do with the film; ask for retake, extend, foley or dub, or give a mask");
    if (sound && silent) refuse("pictures for a sound need it; leave out audio = false");
    if (follows && !sound) return Task::reference;
    return sound ? Task::sound : alone ? Task::sound_alone : Task::text;
}

ClipOptions with_material(const Request& r, Task task) {
    ClipOptions o = r.options;
    if (const double own = r.film.frame_rate;
        !r.film.empty() && o.frame_rate && std::abs(*o.frame_rate - own) > 1e-3 * own)
        refuse("the film has " + spell_number(own) +
               " frames per second, which the clip has, too; leave out frame_rate");
    if (const int64_t own = r.film.frames.num_frames;
        !r.film.empty() && task != Task::extend && o.num_frames.value_or(1) > (own + 6) / 8 * 8 + 1)
        refuse("the film has " + std::to_string(own) + " frames, fewer than num_frames; leave that out");
    if (task == Task::sound_alone) {
        // What there is none of should not stand in the way.
        if (!o.width) o.width = 32;
        if (!o.height) o.height = 32;
    }
    if (r.film.empty()) return o;
    const Frames& f = r.film.frames;
    const int64_t unit = task == Task::dub ? 64 : 32;  // a first stage of half the size
    const auto cells = [&](int64_t side) { return std::max<int64_t>(unit, (side + unit / 2) / unit * unit); };
    if (!o.width) o.width = cells(f.width);
    if (!o.height) o.height = cells(f.height);
    if (!o.frame_rate) o.frame_rate = r.film.frame_rate;
    if (!o.num_frames && !o.duration && task != Task::extend)  // the last one is repeated, or what is too much left out
        o.num_frames = (f.num_frames + (task == Task::dub ? -1 : 6)) / 8 * 8 + 1;
    return o;
}

int64_t frames_for(const Waveform& sound, double frame_rate, int64_t usual) {
    const double seconds = static_cast<double>(sound.samples.dim(1)) / sound.sample_rate;
    return std::clamp<int64_t>(frames_nearest(seconds, frame_rate), 9, std::max<int64_t>(usual, 9));
}

Freedom freedom_of(const Request& r, Task task) {
    Freedom free;
    if (task == Task::sound) free.audio = false;
    if (task == Task::foley) free.video = false;
    if (task != Task::retake) return free;
    const std::string of = r.options.retake_of.value_or(r.mask.num_frames ? "picture" : "both");
    free.video = of != "sound";
    free.audio = of != "picture" || r.film.sound.samples.empty();
    free.everywhere = false;
    constexpr double for_ever = 1e9;
    free.from = r.options.retake ? (*r.options.retake)[0] : 0;
    free.to = r.options.retake ? (*r.options.retake)[1] : for_ever;
    return free;
}

std::vector<int64_t> reference_frames(const Request::Reference& reference, int64_t num_frames, int64_t temporal) {
    const int64_t have = reference.still ? num_frames : std::min(num_frames, reference.film.frames.num_frames);
    if (have < 1) refuse("a reference has no pictures");
    std::vector<int64_t> frames{0};
    for (int64_t f = 1; f < have; f += temporal) frames.push_back(f);
    frames.resize((frames.size() - 1) / 8 * 8 + 1);
    return frames;
}

void check_reference_size(int64_t width, int64_t height, int64_t downscale, bool two_stages) {
    const int64_t unit = 32 * downscale;
    if (width % unit == 0 && height % unit == 0) return;
    const int64_t of_clip = two_stages ? 2 * unit : unit;
    refuse("references are " + std::to_string(downscale) + " times smaller than " + std::to_string(width) + "x" +
           std::to_string(height) + ", which leaves no whole cells; use sides that are multiples of " +
           std::to_string(of_clip));
}

std::optional<std::vector<float>> attention_of(const Request::Reference& reference, const std::vector<int64_t>& frames,
                                               double attention, int64_t width, int64_t height,
                                               std::array<int64_t, 3> cells) {
    const auto a = static_cast<float>(attention);
    const auto [f, h, w] = cells;
    const Frames& given = reference.attention;
    if (given.num_frames == 0) {
        if (a == 1) return std::nullopt;
        return std::vector<float>(static_cast<size_t>(f * h * w), a);
    }
    // Grey as colours, for what scales those.
    Frames rgb{given.num_frames, given.height, given.width, {}};
    rgb.data.reserve(3 * given.data.size());
    for (uint8_t byte : given.data) rgb.data.insert(rgb.data.end(), 3, byte);
    rgb = fitted(std::move(rgb), height, width);
    std::vector<double> sums(static_cast<size_t>(f * h * w));
    std::vector<int64_t> counts(static_cast<size_t>(f));
    for (size_t i = 0; i < frames.size(); ++i) {
        const int64_t frame = std::min(frames[i], rgb.num_frames - 1),
                      cell = i == 0 ? 0 : 1 + static_cast<int64_t>(i - 1) / 8;
        ++counts[static_cast<size_t>(cell)];
        for (int64_t y = 0; y < height; ++y)
            for (int64_t x = 0; x < width; ++x)
                sums[static_cast<size_t>((cell * h + y * h / height) * w + x * w / width)] +=
                    rgb.data[static_cast<size_t>(((frame * height + y) * width + x) * 3)];
    }
    const double pixels = static_cast<double>(height / h * (width / w)) * 255;
    std::vector<float> weights(sums.size());
    for (size_t i = 0; i < sums.size(); ++i)
        weights[i] =
            a * static_cast<float>(sums[i] / (pixels * static_cast<double>(counts[i / static_cast<size_t>(h * w)])));
    return weights;
}

Waveform stereo(const Waveform& sound, double seconds) {
    const int64_t channels = sound.samples.dim(0), have = sound.samples.dim(1),
                  length = std::max<int64_t>(1, std::llrint(seconds * sound.sample_rate)),  // halves to even
        kept = std::min(have, length);
    Waveform out{{{2, length}, std::vector<float>(static_cast<size_t>(2 * length))}, sound.sample_rate};
    for (int64_t c = 0; c < 2; ++c)
        std::copy_n(sound.samples.data.begin() + std::min(c, channels - 1) * have, kept,
                    out.samples.data.begin() + c * length);
    return out;
}

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

double share_of_made(double at, double from, double to, double fade) {
    const double outside = at < from ? from - at : at >= to ? at - to : 0;
    return std::clamp(1 - outside / fade, 0.0, 1.0);
}

Frames fitted(Frames frames, int64_t height, int64_t width) {
    if (frames.height == height && frames.width == width) return frames;
    Frames out{frames.num_frames, height, width, {}};
    out.data.reserve(static_cast<size_t>(out.num_frames * height * width * 3));
    const int64_t size = frames.height * frames.width * 3;
    Frames one{1, frames.height, frames.width, {}};
    for (int64_t i = 0; i < frames.num_frames; ++i) {
        const auto from = frames.data.begin() + i * size;
        one.data.assign(from, from + size);
        for (float x : fit_image(one, height, width).data)
            out.data.push_back(static_cast<uint8_t>(std::lrint(std::clamp((x + 1) * 127.5f, 0.0f, 255.0f))));
    }
    return out;
}

namespace {

// In the middle of what is truncated to this byte.
float value_of(uint8_t byte) { return (static_cast<float>(byte) + 0.5f) / 127.5f - 1; }

}  // namespace

Array pixels_of(const Frames& frames, int64_t first, int64_t count) {
    Array out{{count, frames.height, frames.width, 3}, {}};
    const int64_t size = frames.height * frames.width * 3;
    out.data.reserve(static_cast<size_t>(count * size));
    for (int64_t i = 0; i < count * size; ++i)
        out.data.push_back(value_of(frames.data[static_cast<size_t>(first * size + i)]));
    return out;
}

namespace {

constexpr int64_t cell_pixels = 32, cell_frames = 8;
constexpr double fade_frames = 8, fade_pixels = 16;

// Of a pixel, by how far it is from the nearest free cell around its own.
float share_in_space(const float* free, int64_t rows, int64_t columns, int64_t y, int64_t x) {
    const int64_t row = y / cell_pixels, column = x / cell_pixels;
    double nearest = fade_pixels;
    const auto distance = [](int64_t at, int64_t cell) {
        return static_cast<double>(std::max({cell * cell_pixels - at, at - (cell + 1) * cell_pixels + 1, int64_t{0}}));
    };
    for (int64_t r = std::max<int64_t>(0, row - 1); r <= std::min(rows - 1, row + 1); ++r)
        for (int64_t c = std::max<int64_t>(0, column - 1); c <= std::min(columns - 1, column + 1); ++c)
            if (free[r * columns + c] != 0) nearest = std::min(nearest, std::max(distance(y, r), distance(x, c)));
    return static_cast<float>(1 - nearest / fade_pixels);
}

}  // namespace

std::vector<float> Mixture::shares(int64_t frame) const {
    const auto [frames, rows, columns] = cells_;
    const int64_t height = rows * cell_pixels, width = columns * cell_pixels,
                  own = (frame + cell_frames - 1) / cell_frames;
    std::vector<float> shares(static_cast<size_t>(height * width));
    for (int64_t group = std::max<int64_t>(0, own - 1); group <= std::min(frames - 1, own + 1); ++group) {
        const auto begin = static_cast<double>(std::max<int64_t>(0, cell_frames * group - cell_frames + 1));
        const auto in_time = static_cast<float>(
            share_of_made(static_cast<double>(frame), begin, static_cast<double>(cell_frames * group), fade_frames));
        if (in_time == 0) continue;
        const float* free = free_.data() + group * rows * columns;
        for (int64_t y = 0; y < height; ++y)
            for (int64_t x = 0; x < width; ++x) {
                float& share = shares[static_cast<size_t>(y * width + x)];
                if (share < in_time) share = std::max(share, in_time * share_in_space(free, rows, columns, y, x));
            }
    }
    return shares;
}

void Mixture::mix(Array& made, const Frames& film, int64_t first) const {
    const int64_t pixels = film.height * film.width;
    for (int64_t f = 0; f < made.dim(0) && first + f < film.num_frames; ++f) {
        const std::vector<float> of_pixels = shares(first + f);
        float* to = made.data.data() + f * pixels * 3;
        const uint8_t* from = film.data.data() + (first + f) * pixels * 3;
        for (int64_t i = 0; i < pixels * 3; ++i) {
            const float s = of_pixels[static_cast<size_t>(i / 3)];
            if (s == 1) continue;
            // What lies beyond white or black is cut off before it is mixed.
            to[i] = s == 0 ? value_of(from[i]) : s * std::clamp(to[i], -1.0f, 1.0f) + (1 - s) * value_of(from[i]);
        }
    }
}

namespace {

// The brightness of a mask at another size, as colours have it; nearest pixels.
std::vector<uint8_t> fitted_mask(const Frames& mask, int64_t frame, int64_t height, int64_t width) {
    const uint8_t* from = mask.data.data() + std::min(frame, mask.num_frames - 1) * mask.height * mask.width;
    std::vector<uint8_t> out;
    for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
            out.push_back(from[y * mask.height / height * mask.width + x * mask.width / width]);
    return out;
}

}  // namespace

std::vector<float> bright_cells(const Frames& mask, std::array<int64_t, 3> cells) {
    const auto [frames, rows, columns] = cells;
    const int64_t height = rows * cell_pixels, width = columns * cell_pixels;
    std::vector<float> bright(static_cast<size_t>(frames * rows * columns));
    for (int64_t f = 0; f <= cell_frames * (frames - 1); ++f) {
        const std::vector<uint8_t> now = fitted_mask(mask, f, height, width);
        std::vector<int64_t> sums(static_cast<size_t>(rows * columns));
        for (int64_t y = 0; y < height; ++y)
            for (int64_t x = 0; x < width; ++x)
                sums[static_cast<size_t>(y / cell_pixels * columns + x / cell_pixels)] +=
                    now[static_cast<size_t>(y * width + x)];
        const int64_t group = (f + cell_frames - 1) / cell_frames;
        for (size_t i = 0; i < sums.size(); ++i)
            if (2 * sums[i] > 255 * cell_pixels * cell_pixels)
                bright[static_cast<size_t>(group * rows * columns) + i] = 1;
    }
    return bright;
}

Waveform mixed(const Waveform& film, const Waveform& made, double from, double to) {
    constexpr double fade = 0.02;  // seconds
    Waveform out = film;
    const Array there = resample(made.samples, made.sample_rate, film.sample_rate);
    const int64_t length = film.samples.dim(1), have = std::min(length, there.dim(1));
    out.clipped = made.clipped;
    for (int64_t i = 0; i < have; ++i) {
        const double at = static_cast<double>(i) / film.sample_rate;
        const auto share = static_cast<float>(share_of_made(at, from, to, fade));
        if (share == 0) continue;
        for (int64_t c = 0; c < film.samples.dim(0); ++c) {
            float& x = out.samples.data[static_cast<size_t>(c * length + i)];
            x = share * there.data[static_cast<size_t>(c * there.dim(1) + i)] + (1 - share) * x;
        }
    }
    return out;
}

FreeRun free_run(const std::vector<float>& free) {
    FreeRun run{static_cast<int64_t>(free.size()), -1};
    for (size_t i = 0; i < free.size(); ++i) {
        if (free[i] == 0) continue;
        run.first = std::min(run.first, static_cast<int64_t>(i));
        run.last = static_cast<int64_t>(i);
    }
    return run;
}

}  // namespace sdltx
