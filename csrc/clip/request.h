// What somebody asks for: options, and what is no number or name. Settled once at the door, then only read. No ggml.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/types.h"
#include "options.h"

namespace sdltx {

struct Request {
    ClipOptions options;
    std::vector<Condition> images;
    Noise noise;       // to start from; what is empty is drawn from the seed
    Latents initial;   // what is refined, with schedules that begin below 1
    Waveform sound{};  // that pictures are made for
    Film film{};       // that is made anew in part
    Frames mask{};     // where it is made anew, by brightness: a byte for each pixel, (F, H, W); empty: everywhere
    // Films that the clip follows, as an IC-LoRA was trained to.
    struct Reference {
        Film film;
        bool still = false;  // one picture, that is there all the time
        float strength = 1;  // 1: as it is; less: it is noised and denoised, too
        Frames attention{};  // how strongly each of its pixels counts: a byte each, (F, H, W); empty: all alike
    };
    std::vector<Reference> references{};

    bool refines() const { return !initial.video.empty() || !initial.audio.empty(); }
};

// Options by name, and `images`: objects with path, frame, strength and crf. Values that are no text or number, such as
// the pixels of a picture, are left out.
SDLTX_EXPORT Json to_json(const Request& request);
// The opposite: sets what `json` has, which may also be what a clip remembers. A picture may be its path alone. Throws
// Error(invalid_request) for values of another kind and for names that there are not.
SDLTX_EXPORT void read_json(const Json& json, Request& request);

// What clips remember besides, which asks for nothing.
SDLTX_EXPORT const std::vector<std::string>& told_names();

}  // namespace sdltx
