// A film that goes on, or begins earlier: windows of the model one after the other, each of which begins with what is
// there already (conditioning.md 4). No ggml.
#pragma once

#include "ltxv/conditioning.h"
#include "material.h"

namespace sdltx {

// What is asked for, in frames.
struct ExtensionPlan {
    bool before = false;  // new pictures come before the film
    int64_t context = 0;  // latent frames of the film that a window sees, but for a first one
    int64_t wanted = 0;   // new pictures
    int64_t window = 0;   // pictures of a window

    // Pictures of the film in a window.
    int64_t seen() const { return before ? 8 * context : 8 * context + 1; }
    int64_t made() const { return window - seen(); }
    int64_t windows() const { return (wanted + made() - 1) / made(); }
};
// usual: frames of a window if nobody says. Throws Error(invalid_request) for what cannot be.
ExtensionPlan extension_of(const ClipOptions& options, const Film& film, double frame_rate, int64_t usual);

// One on its way.
class SDLTX_EXPORT Extension {
 public:
    // film: at the size of the clip; sound: stereo, of the film's length; without samples: it is silent.
    Extension(const ExtensionPlan& plan, Frames film, Waveform sound, double frame_rate, int64_t audio_frames);

    bool done() const { return left_ <= 0; }
    bool last_window() const { return left_ <= plan_.made(); }
    // Pictures that the next window sees, to be encoded, and what it is held at by their latents.
    Frames pictures() const;
    Kept kept(const Array& latents) const;
    // The sound that it hears, to be encoded; no samples: none. And what it is held at.
    Waveform sound() const;
    Kept kept_sound(const Array& latents) const;
    // A window as it was decoded; made: no samples, it has no sound.
    void add(const Frames& window, const Waveform& made);

    const Frames& film() const { return film_; }  // with all that was made
    // As long as the pictures. Without samples where none was heard or made.
    Waveform whole_sound() const;

 private:
    double seconds(int64_t frames) const { return static_cast<double>(frames) / frame_rate_; }
    int64_t samples(double seconds) const;
    int64_t tokens_before() const;  // where the film's sound begins, when it comes last
    void add_sound(const Waveform& made, int64_t taken);

    ExtensionPlan plan_;
    Frames film_;
    Waveform sound_;
    double frame_rate_;
    int64_t audio_frames_, left_;
};

}  // namespace sdltx
