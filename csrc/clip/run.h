// Several requests on their way through a model, part by part of it: all prompts are encoded, then all clips denoised,
// then all decoded, so that each part is brought in once.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <vector>

#include "base/types.h"
#include "ltxv/conditioning.h"
#include "plan.h"
#include "request.h"

namespace sdltx {

// One request, and how far it is.
struct Job {
    Request request;
    ClipPlan plan;                             // of it
    std::optional<Context> context, negative;  // what is given is not encoded
    std::optional<Latents> latents;            // what is given is not denoised
    Noise second_noise{};                      // of a second stage; empty: drawn
    bool pictures = true, sound = true;        // whether they are decoded
    bool sound_first = false;                  // as who writes a file has to know whether there is any
    std::exception_ptr failure{};              // what it ended with

    // What is given, encoded.
    struct Given {
        std::vector<Condition> images;  // with their latents
        Array film;                     // (C, F', H', W')
        std::vector<ReferenceFilm> references{};
        std::vector<Kept> kept{}, kept_sound{};
        std::vector<float> mask{};  // 1 for the cells (F', H', W') that are made; empty: all
    };
    std::vector<Given> given{};  // by stage
    Array given_sound{};         // (C, T, mel bins)
    Frames film{};               // at the size of the result
};

// Thrown by a callback: this job is over, the others go on.
struct JobFailed {
    std::exception_ptr why;
};

// What a run tells of its jobs, by their numbers. A callback returns false to end the run.
struct RunEvents {
    Progress progress;
    std::function<bool(size_t job)> on_encoded;  // its contexts are there
    std::function<bool(size_t job, int64_t done, int64_t steps, const Latents& estimate)> on_step;
    std::function<bool(size_t job)> on_denoised;                      // its latents are there
    std::function<bool(size_t job, const Waveform* sound)> on_sound;  // null: there is none
    std::function<bool(size_t job, const Array& pixels)> on_frames;   // (frames, H, W, 3) in [-1, 1], in order
    std::function<bool(size_t job, const Tiling& tiles)> on_tiles;    // others than asked for, as memory is short
    std::function<bool(size_t job)> on_decoded;                       // all of it is told
    std::function<bool(size_t job)> on_finished;                      // done or failed
};

// How far a run is.
struct WholeProgress {
    double fraction = 0;       // of the whole, 0 to 1, by an estimate of the work
    double seconds_left = -1;  // as far as can be told; below 0: not yet
};

}  // namespace sdltx
