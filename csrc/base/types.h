// Values that cross the border of the core. Plain data; shapes in NumPy order (slowest axis first).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "export.h"

namespace sdltx {

// A dense float32 array. An empty shape with no data means "absent".
struct Array {
    std::vector<int64_t> shape;
    std::vector<float> data;

    bool empty() const { return data.empty(); }
    int64_t dim(size_t i) const { return shape.at(i); }
};

// "(8, 2, 1, 2)"
std::string spell_shape(const std::vector<int64_t>& shape);
// A number as it is read, in whatever locale: "0.7", "30".
std::string spell_number(double value);

// What the transformer attends to: video (rows, cross_attention_dim), audio (rows, audio_cross_attention_dim).
struct Context {
    Array video;
    Array audio;
};

// Normalised latents: video (C, F', H', W'), audio (C, T, mel bins); frame_rate in frames per second.
struct Latents {
    Array video;
    Array audio;
    double frame_rate = 0;
    Array keyframes{};  // pictures that were made beside the clip, (C, K, H', W'); between the stages of a clip only
};

// RGB frames (F, H, W, 3).
struct Frames {
    int64_t num_frames = 0, height = 0, width = 0;
    std::vector<uint8_t> data;
};

// A picture that a clip begins with, or shows at one of its frames.
struct Condition {
    Frames image;        // one picture, RGB, of any size
    Array latent;        // or what it encodes to at the size of the clip, (C, 1, H', W')
    int64_t frame = 0;   // negative: from the clip's end
    float strength = 1;  // 1: as it is, down to 0: not at all
    std::string path;    // of the file that it is read from, by those who can; else empty
    int64_t crf = -1;    // how much H.264 spoils it first; -1: as the checkpoint is used to
};

// Start noise in the shapes of Latents.
struct Noise {
    Array video, audio;
};

// A file that changes the transformer, and how much.
struct LoraFile {
    std::string path;
    float strength = 1;
    bool operator==(const LoraFile& o) const { return path == o.path && strength == o.strength; }
};

// Samples (channels, N) in [-1, 1]; sample_rate in Hz.
struct Waveform {
    Array samples;
    int sample_rate = 0;
    int64_t clipped = 0;  // samples that were beyond [-1, 1] and are at its end now
};

// A film that a clip is made from: pictures of any size, and what is heard; no sound: it is silent.
struct Film {
    Frames frames;
    double frame_rate = 0;  // frames per second
    Waveform sound{};
    std::string path{};  // of the file that it was read from; else empty

    bool empty() const { return frames.num_frames == 0; }
};

struct Video {
    Frames frames;
    Waveform audio;  // empty when the clip is silent
    double frame_rate = 0;
};

// Reported before the first and after every unit of work; `phase` is load, encode, denoise, upscale, decode or sound.
// Denoising counts the blocks of the transformer, over all steps.
struct ProgressEvent {
    const char* phase;
    int64_t done;
    int64_t total;
};

// Returns false to cancel. Called on the thread that runs the pipeline, never concurrently.
using Progress = std::function<bool(const ProgressEvent&)>;

// Intermediate tensors asked for by stage name; filled by whatever graph computes them (the last run wins).
struct Trace {
    std::vector<std::string> patterns;  // shell globs
    std::map<std::string, Array> tensors;
    std::map<std::string, int64_t> runs;  // how often each was computed

    bool wants(const std::string& name) const;
};

// Calls `progress` if there is one and throws Error(cancelled) when it returns false.
void report(const Progress& progress, const char* phase, int64_t done, int64_t total);

}  // namespace sdltx
