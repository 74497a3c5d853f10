// What a clip is made from besides prompts and pictures (conditioning.md): which task that is, what it asks of the
// clip, and how what was given and what was made become one. No ggml.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "ltxv/geometry.h"
#include "options.h"
#include "request.h"

namespace sdltx {

enum class Task {
    text,         // all is made
    sound_alone,  // no pictures
    sound,        // pictures for a sound that is given
    retake,       // some seconds of a film
    extend,       // a film goes on, or begins earlier
    foley,        // sound for the pictures of a film
    dub,          // other words in a film
    reference,    // a clip that follows films
};
struct TaskRow {
    Task task;
    const char *name, *purpose, *needs;
};
// In the order of the enum.
SDLTX_EXPORT const std::vector<TaskRow>& all_tasks();
SDLTX_EXPORT const char* name_of(Task task);

// "both", "picture", "sound"
std::vector<std::string> retake_parts();
// What is wrong with options of material whatever is given. Throws Error(invalid_request).
void check_material(const ClipOptions& options);
// Throws Error(invalid_request) for material that does not go together, or that nothing says what to do with.
Task task_of(const Request& request);
// The options with what the material decides and nobody else did: a film's size, rate and length.
ClipOptions with_material(const Request& request, Task task);
// How many frames a clip for a sound has if nobody says: as many as it lasts, at most `usual`.
int64_t frames_for(const Waveform& sound, double frame_rate, int64_t usual);

// What is made of the two streams. A stream of which nothing is made stays what is given.
struct Freedom {
    bool video = true, audio = true;
    bool everywhere = true;  // else within the seconds [from, to)
    double from = 0, to = 0;
};
Freedom freedom_of(const Request& request, Task task);

// --- references ---

// How references relate to the clip.
struct ReferenceFactors {
    int64_t downscale = 1, temporal = 1;
};
// Which frames of a reference count in a clip of so many: their numbers, 8 k + 1 of them. Throws Error(invalid_request)
// for one that has none.
std::vector<int64_t> reference_frames(const Request::Reference& reference, int64_t num_frames, int64_t temporal);
// Throws Error(invalid_request) for a stage whose sides do not come out even.
void check_reference_size(int64_t width, int64_t height, int64_t downscale, bool two_stages);
// Weights of the tokens of a reference (f h w), by the brightness of its cells; nothing where all count alike.
SDLTX_EXPORT std::optional<std::vector<float>> attention_of(const Request::Reference& reference,
                                                            const std::vector<int64_t>& frames, double attention,
                                                            int64_t width, int64_t height,
                                                            std::array<int64_t, 3> cells);

// --- sound ---

// Two channels of `seconds` from the beginning: one channel becomes both, of more the first two are taken, silence
// follows what is too short.
Waveform stereo(const Waveform& sound, double seconds);

// Audio latents (C, T, mel bins) cut to `frames`, or with zeros after them: sizes of stages are rounded each for
// itself.
Array with_frames(const Array& audio, int64_t frames);

// --- what was given and what was made ---

// How much of what was made is seen or heard, 0 to 1, `fade` before and after [from, to).
double share_of_made(double at, double from, double to, double fade);

// A film at the size of a clip: scaled to cover it and cut on both sides. Its bytes are taken where it has that size.
Frames fitted(Frames frames, int64_t height, int64_t width);
// Frames first, first + 1, ... in [-1, 1] as they come out as the same bytes again.
Array pixels_of(const Frames& frames, int64_t first, int64_t count);
// How much of each pixel of a clip is made where a film shows in the rest. Made cells end in fades of 8 frames and 16
// pixels.
class Mixture {
 public:
    // free: 1 for the cells (F', H', W') of a clip that are made.
    Mixture(std::vector<float> free, std::array<int64_t, 3> cells) : free_(std::move(free)), cells_(cells) {}

    // Mixes made pixels (n, H, W, 3), the first of which is frame `first`, with a film's.
    void mix(Array& made, const Frames& film, int64_t first) const;

 private:
    std::vector<float> shares(int64_t frame) const;  // (H, W)

    std::vector<float> free_;
    std::array<int64_t, 3> cells_;
};
// 1 for the cells of a clip more than half of whose pixels are bright in one of their frames (conditioning.md 5, in the
// causal groups of the VAE). The last frame of a mask stays.
std::vector<float> bright_cells(const Frames& mask, std::array<int64_t, 3> cells);
// The film's sound with what was made within [from, to) seconds, at the film's rate.
Waveform mixed(const Waveform& film, const Waveform& made, double from, double to);

// The first and the last of the tokens that are free, by what is kept (1) of them; nothing is free: last < first.
struct FreeRun {
    int64_t first = 0, last = -1;
};
FreeRun free_run(const std::vector<float>& free);

}  // namespace sdltx
