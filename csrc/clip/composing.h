// What of a job's film, sound and references goes into the model, and what of them comes out again. No ggml.
#pragma once

#include "ltxv/image.h"
#include "run.h"

namespace sdltx {

// Whether something of a film is in what comes out.
bool shows_film(const Job& job);
// The cells that are made, where a film shows in the others.
Mixture mixture_of(const Job& job);
// Whether something that was given is heard.
bool gives_sound(const Job& job);
// What is heard, of what was decoded (null: nothing was).
Waveform heard(const Job& job, const Waveform* made);

// A job's film, whose last picture is repeated where whole latent frames need more; the job must outlive it.
Footage footage_of_film(const Job& job, const SampleSettings& settings);
// The pictures of a reference that count, at its size.
Frames pictures_of_reference(const Job& job, const ReferenceShape& shape, const Request::Reference& reference);

}  // namespace sdltx
