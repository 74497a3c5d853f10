#include "composing.h"

#include <algorithm>

#include "ltxv/image.h"

namespace sdltx {

bool shows_film(const Job& job) {
    return !job.request.film.empty() && job.plan.task != Task::dub &&
           !job.request.options.decode_everywhere.value_or(false);
}

Mixture mixture_of(const Job& job) {
    const Geometry& g = job.plan.whole.latent;
    const Freedom& free = job.plan.free;
    std::vector<float> cells = within(video_positions(g.frames, g.height, g.width, g.frame_rate), free.from, free.to);
    if (job.request.mask.num_frames) {
        const std::vector<float> bright = bright_cells(job.request.mask, {g.frames, g.height, g.width});
        for (size_t i = 0; i < cells.size(); ++i) cells[i] *= bright[i];
    }
    return {std::move(cells), {g.frames, g.height, g.width}};
}

bool gives_sound(const Job& job) {
    if (!job.plan.whole.audio) return false;
    return job.plan.task == Task::sound || (job.plan.task == Task::retake && !job.request.film.sound.samples.empty());
}

Waveform heard(const Job& job, const Waveform* made) {
    const Request& r = job.request;
    const SampleSettings& s = job.plan.whole;
    const double seconds = static_cast<double>(job.plan.result_frames) / s.frame_rate;
    if (job.plan.task == Task::sound) return stereo(r.sound, seconds);
    if (!shows_film(job) || r.film.sound.samples.empty() || job.plan.free.everywhere)
        return made ? *made : stereo(r.film.sound, seconds);
    const Waveform film = stereo(r.film.sound, seconds);
    if (!made) return film;
    const Freedom& free = job.plan.free;
    const Positions p = audio_positions(s.latent.audio_frames);
    const FreeRun run = free_run(within(p, free.from, free.to));
    return mixed(film, *made, p.bounds[static_cast<size_t>(2 * run.first)],
                 p.bounds[static_cast<size_t>(2 * run.last + 1)]);
}

Footage footage_of_film(const Job& job, const SampleSettings& settings) {
    const Frames& film = job.film;
    const Footage own = footage_of(film.data.data(), film.num_frames, film.height, film.width);
    const int64_t last = film.num_frames - 1;
    return {settings.num_frames, film.height, film.width,
            [own, last](int64_t f, float* rgb) { own.read(std::min(f, last), rgb); }};
}

Frames pictures_of_reference(const Job& job, const ReferenceShape& shape, const Request::Reference& reference) {
    const Frames& given = job.plan.task == Task::dub ? job.request.film.frames : reference.film.frames;
    const int64_t size = given.height * given.width * 3;
    Frames counting{0, given.height, given.width, {}};
    for (int64_t f : reference.still ? std::vector<int64_t>{0} : shape.frames) {
        counting.data.insert(counting.data.end(), given.data.begin() + f * size, given.data.begin() + (f + 1) * size);
        ++counting.num_frames;
    }
    return fitted(std::move(counting), shape.height, shape.width);
}

}  // namespace sdltx
