"""Loading a model and running it: prompt -> Context -> Latents -> Video. All computing happens in the compiled core."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, overload

from . import _arguments, _core, library
from ._demo import demo_files
from ._open_model import OpenModel
from .environment import loaded_with
from .errors import Cancelled, InvalidRequestError, SdltxError
from .images import Condition
from .jobs import GeneratedJob, Job, Maker, SampledJob, VideoJob, hears, planned, ready_jobs, remembered
from .options import Options, core_options, explicit
from .progress import Progress, heard
from .records import Estimate, Plan, estimate_of
from .request import Arguments, Request
from .values import Context, Latents, Tiling, Video, tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    _Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
    _Latents = tuple[NDArray[np.float32], NDArray[np.float32] | None]
    OnStep = Callable[[int, int, Latents], object]
else:
    from ._lazy import NDArray, np

_FASTEST_SOUND = 1_000_000  # samples per second
_logger = logging.getLogger("sdltx")


class Sink(Protocol):
    """Takes a clip piece by piece, in order; :class:`sdltx.media.VideoWriter` is one."""

    def write_frames(self, frames: NDArray[np.uint8], /) -> object:
        """Takes (n, H, W, 3) pictures."""


def load(
    *paths: str | os.PathLike[str],
    device: str | Sequence[str] | None = None,
    precision: str | None = None,
    threads: int | None = None,
    offload: str | None = None,
    max_memory: float | None = None,
    max_vram: float | None = None,
    progress: Progress = None,
) -> Pipeline:
    """Opens a model.

    paths: safetensors and GGUF files and folders of them, in any order; together they hold the transformer, the VAEs
        and the text encoder. Or the name of a set that was pulled, such as "ltx-2.3-distilled:q4_k_m" (see
        :func:`sdltx.pull`). None: the small demonstration model that is part of the package.
    device: where it runs: "auto" (default) for the best GPU with enough memory, else the CPU; "cpu", the name of a GPU,
        or "rpc:HOST:PORT" for another machine where ``sdltx-cli worker`` runs. A list shares the blocks of the networks
        among its devices.
    precision: "auto" (default) computes in the types of the weights; "f32" runs every operation in exact float32 (on
        CPUs, also those of workers).
    threads: CPU threads; None: one per physical core that the process may use.
    offload: how long weights stay in memory once they were needed: "auto" (default) = as long as there is room for
        them; "none" = until the pipeline is closed; "stage" = while the prompt is encoded, the clip is denoised, or it
        is decoded; "blocks" = for one block of transformer and text encoder, which is the least memory. The clips are
        the same bit for bit.
    max_memory, max_vram: GiB that may be taken at most of the machine, and of each GPU; negative: that are left free;
        None: no limit but what is there.
    progress: called with ("load", done, total); an exception it raises stops loading and comes out unchanged.

    What is None and named by an environment variable (SDLTX_DEVICE, SDLTX_PRECISION, SDLTX_THREADS, SDLTX_OFFLOAD,
    SDLTX_MAX_MEMORY, SDLTX_MAX_VRAM) is taken from there. Only what describes the weights is read here: they are loaded
    when they are needed first, which the progress callback of that call is told as "load" too.

    Raises ModelFileError, ModelMismatchError, OutOfMemoryError, BackendError or InvalidRequestError.
    """
    if not paths:
        _logger.warning("no files are given, so this is the demonstration model of the package")
    given = {"device": device, "precision": precision, "threads": threads, "offload": offload}
    options = loaded_with({**given, "max_memory": max_memory, "max_vram": max_vram})
    files = library.expanded("load", paths) or demo_files()
    pipe = Pipeline(files, progress=None if isinstance(progress, bool) else progress, **options)
    _logger.info("%s runs on %s", pipe.info.model, pipe.device)
    return pipe


@explicit
def check(*, prompt: str | None = None, tiling: Tiling | None = None, **options: Unpack[Options]) -> None:
    """Raises the InvalidRequestError that :meth:`Pipeline.generate` would raise for these; needs no model."""
    if prompt is not None:
        _arguments.text("encode", "prompt", prompt)
    _core.check_tiling(tiles("decode", tiling))
    _core.check(core_options(options))


def _waits_for_prompt(job: Job) -> bool:
    return hears(job, "on_encoded") or bool(job.request.options.get("enhance"))


def _asked(request: Request | str | None, given: Mapping[str, Any]) -> _core.Job:
    """A request, or a prompt, with these arguments, as the core plans it."""
    return planned(Request.of("" if request is None else request, given))


class Pipeline(OpenModel):
    """A loaded model. Made by :func:`load`.

    One run at a time: a call from another thread meanwhile raises :class:`sdltx.BusyError`; a callback may use the
    pipeline it was called from. Processes that have computed should start others with "spawn", as threads do not
    survive a fork. Files must stay as they are while the model is in use: the system ends the process if one is
    shortened. :meth:`close`, or the end of a ``with`` block, gives memory and files back.

    Methods that take ``progress`` show bars on a terminal and in a notebook; True has them shown elsewhere, too, False
    nowhere. A function is called as ``progress(phase, done, total)`` before the first and after every unit of work,
    where phase is "load" (when weights are needed that are not there), "encode", "denoise" (which counts
    the blocks of the transformer, over all steps), "upscale", "decode" or "sound". An exception that it raises, such as
    :class:`sdltx.Cancelled`, stops the run and comes out unchanged.
    """

    @explicit
    def estimate(
        self,
        request: Request | str | None = None,
        /,
        **options: Unpack[Arguments],
    ) -> Estimate:
        """Returns the memory that a clip takes, by what is free now.

        The arguments are those of :meth:`generate`; pictures are not looked at, and a prompt is taken to be as long as
        it may be.

        Parts of the model that are not there take nothing. Nothing is allocated and no weight is read.
        """
        return estimate_of(self._core.estimate(_asked(request, options)))

    def encode(self, prompt: str, *, progress: Progress = None) -> Context:
        """Turns a prompt into what the transformer attends to; text beyond 1024 tokens is cut off."""
        text = _arguments.text("encode", "prompt", prompt)
        with heard("encode", progress) as callback:
            video, audio = self._core.encode(text, progress=callback)
        return Context(video, audio, prompt)

    def enhance(self, prompt: str, *, system: str | None = None, seed: int = 0, progress: Progress = None) -> str:
        """Returns a prompt as the text encoder writes it out, for :meth:`generate` or :meth:`encode`.

        system: what it is told to do; None: a short text of ours. The reference's own texts are files of its
            repository.
        seed: of the words that are drawn.
        progress: also called with ("enhance", tokens, 512), the most that it writes.

        What ``generate(prompt, enhance=True)`` does. Raises ModelMismatchError for a text encoder that does not write
        (LTX-2.5's), InvalidRequestError for texts that are too long or control it, Cancelled and what encode() raises.
        """
        text = "" if system is None else _arguments.text("enhance", "system", system)
        number = _arguments.whole("enhance", "seed", seed)
        if number < 0:
            raise InvalidRequestError(f"[enhance] seed {number} is negative; use 0 or more")
        given = _arguments.text("encode", "prompt", prompt)
        with heard("enhance", progress) as callback:
            return self._core.enhance(given, system=text, seed=number, progress=callback)

    def duration(self, context: Context) -> float:
        """Returns how many seconds a clip of a prompt is to last, 0 or more, as the model's duration head tells.

        Raises ModelMismatchError without one. With ``duration="auto"`` clips last so long, within 1 and 20 seconds.
        """
        _arguments.instance("duration", "context", context, Context, "made by encode()")
        return self._core.duration((context.video, context.audio))

    @explicit
    def check(self, request: Request | str | None = None, /, **options: Unpack[Arguments]) -> None:
        """Raises what :meth:`generate` would raise for these arguments, files, and frames of pictures."""
        self._core.check(_asked(request, options))

    @explicit
    def resolve(self, request: Request | str | None = None, /, **options: Unpack[Arguments]) -> Plan:
        """Returns what :meth:`generate` would run for these arguments of it, with nothing left open, and more.

        Also in the result, schedule: "distilled", "ltx2" or "given"; sigmas: the noise levels; passes: how often the
        transformer is run for each guided estimate; recipe; upscalers and distilled_lora: the files of them that are
        used; task: what is made of what is given; result_frames: how many pictures come out; stages: such dictionaries
        of each stage, with its loras as pairs of a path and a strength. Costs nothing, so call it before encoding.
        Raises the InvalidRequestError that :meth:`sample` would raise, ModelMismatchError if a recipe was asked for
        and what it needs is not there, ModelFileError or ModelMismatchError for another file than an upscaler.
        """
        resolved = self._core.resolve(_asked(request, options))
        for stage in resolved["stages"]:
            stage["loras"] = [tuple(one) for one in stage["loras"]]
        return Plan(resolved)

    @explicit
    def doubts(self, request: Request | str | None = None, /, **options: Unpack[Arguments]) -> list[str]:
        """Returns what is possible with :meth:`generate` but probably not meant, a line each."""
        return self._core.doubts(_asked(request, options))

    @explicit
    def sample(
        self,
        context: Context,
        *,
        negative: Context | None = None,
        noise: Latents | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        sound: Any | None = None,
        film: Any | None = None,
        references: Iterable[Any] | None = None,
        initial: Latents | None = None,
        progress: Progress = None,
        on_step: Callable[[int, int, Latents], object] | None = None,
        **options: Unpack[Options],
    ) -> Latents:
        """Denoises random latents into a clip.

        context: from :meth:`encode`.
        negative: what a clip is guided away from, where guidance_scale is not 1; None: the model's negative
            prompt (``info["negative_prompt"]``; ``sdltx.default_negative_prompt``, the reference's, unless its files
            have one), which is encoded when it is needed first.
        noise: start noise, in the shapes of the result; a part that it lacks is drawn from the seed. Its frame rate is
            the clip's unless one is given.
        image: what the clip begins with: a file, a picture of Pillow or RGB bytes (H, W, 3).
        last_image: what it ends with.
        conditions: pictures at any of its frames, see :class:`sdltx.Condition`.
        sound: what pictures are made for: a file, samples and their rate, or a :class:`sdltx.Sound`.
        film: what ``retake``, ``foley`` and ``dub`` work on: a file, a :class:`sdltx.Video` or a :class:`sdltx.Film`.
        references: films that it follows by an IC-LoRA among ``loras``, see :class:`sdltx.Reference`.
        initial: latents that are refined, for schedules that begin below 1; in the shapes of the result.
        on_step: called after each step as ``on_step(done, steps, estimate)``, where the estimate is what the finished
            clip is taken to be so far; :class:`sdltx.preview.Projection` makes pictures of it. An exception that it
            raises ends the run and comes out unchanged.

        Raises InvalidRequestError for a value outside its range and for what is no picture, ModelMismatchError for
        guidance without a text encoder or ``negative`` and pictures without a video encoder, OutOfMemoryError,
        BackendError or Cancelled.
        """
        _arguments.instance("sample", "context", context, Context, "made by encode()")
        if options.get("enhance"):
            raise InvalidRequestError("[enhance] a context is a prompt that is encoded already; use enhance() before")
        if negative is not None:
            _arguments.instance("sample", "negative", negative, Context, "made by encode()")
        given: dict[str, Any] = {"image": image, "last_image": last_image, "conditions": conditions}
        given |= {"sound": sound, "film": film, "references": references}
        request = Request("", noise=noise, initial=initial, **given, **options)
        job = SampledJob(request, on_step, context=context, negative=negative)
        self._run_one("sample", job, progress)
        assert job.latents is not None
        return job.latents

    def run(self, jobs: Iterable[Job], *, progress: Progress = None) -> None:
        """Runs jobs part of the model by part: all prompts are encoded, then all clips denoised, then all decoded.

        So each part is loaded once, whatever ``offload`` says. A job that fails has the reason as its ``error``, its
        ``latents`` if they were finished, and the others go on. ``progress`` hears of one job after the other; how far
        the whole run is tells :attr:`whole_progress`.

        Raises what stops the run: what ``progress`` raises, and exceptions of jobs' methods that are neither SdltxError
        nor OSError.
        """
        jobs, ready = ready_jobs(self.info["image_crf"], jobs)
        rates: dict[int, float] = {}
        maker = Maker(self.info, self.files, self.device, self.precision)

        def encoded(i: int, context: _Pair, negative: _Pair | None, written: str | None) -> None:
            job = jobs[i]
            if written is not None:
                idea = job.request.options.get("enhanced_from", job.request.prompt)
                done = {"enhance": None, "enhance_system": None, "enhanced_from": idea}
                job.request = job.request.replaced(prompt=written, **done)
            job.context = job.context or Context(*context, job.request.prompt)
            if negative is not None:
                text = job.request.negative_prompt
                job.negative = job.negative or Context(
                    *negative, self.info["negative_prompt"] if text is None else text
                )
            job.on_encoded()

        def step(i: int, done: int, steps: int, values: _Latents) -> None:
            if i not in rates:
                rates[i] = self._core.resolve(planned(jobs[i].request))["frame_rate"]
            jobs[i].on_step(done, steps, Latents(*values, rates[i]))

        def denoised(i: int, values: _Latents, plan: dict[str, Any]) -> None:
            jobs[i].latents = Latents(*values, plan["frame_rate"], remembered(maker, jobs[i], plan))
            jobs[i].context = jobs[i].negative = None
            jobs[i].on_denoised()

        def finished(i: int, error: BaseException | None) -> None:
            jobs[i].error = error
            try:
                jobs[i].on_finished()
            except Cancelled:
                raise
            except (SdltxError, OSError) as own:
                jobs[i].error = error or own

        with heard("run", progress, lambda: self.whole_progress) as callback:
            self._core.run(
                ready,
                progress=callback,
                on={
                    **({"encoded": encoded} if any(map(_waits_for_prompt, jobs)) else {}),
                    **({"step": step} if any(hears(job, "on_step") for job in jobs) else {}),
                    "denoised": denoised,
                    "sound": lambda i, sound: jobs[i].on_sound(sound),
                    "frames": lambda i, frames: jobs[i].on_frames(frames),
                    "tiles": lambda i, tiling: jobs[i].on_tiles(Tiling(*tiling)),
                    "decoded": lambda i: jobs[i].on_decoded(),
                    "finished": finished,
                },
            )

    @property
    def whole_progress(self) -> tuple[float, float | None]:
        """How far the run is that goes on, or was the last: a fraction from 0 to 1, and seconds left if known.

        Both are estimates of the work; any thread may ask, callbacks too.
        """
        fraction, left = self._core.whole_progress
        return fraction, left

    def _run_one(self, where: str, job: Job, progress: Progress | None) -> None:
        """Runs a job alone; its failure is raised, with the denoised clip if there is one."""
        try:
            self.run([job], progress=progress)
            if job.error is not None:
                raise job.error
        except BaseException as error:
            if job.latents is not None:
                error.latents = job.latents  # type: ignore[attr-defined]
            raise

    def upscalers(self) -> dict[str, str]:
        """Tells which upscalers lie in its folders: "space x2", "space x1.5" or "time x2" by path."""
        return dict(self._core.upscalers())

    def upsample(self, latents: Latents, upscaler: str | os.PathLike[str], *, progress: Progress = None) -> Latents:
        """Returns latents with more pixels, or with more frames at a higher rate, as an upscaler makes them.

        They are a start for :meth:`sample` with ``initial``, which adds the detail. The sound stays.
        """
        _arguments.instance("upscaler", "latents", latents, Latents, "made by sample() or Latents.load()")
        path = _arguments.raw(_arguments.path("upscaler", upscaler))
        with heard("upscaler", progress) as callback:
            video, rate = self._core.upsample(latents.video, latents.frame_rate or 24.0, path, progress=callback)
        return Latents(video, latents.audio, rate)

    def decode(self, latents: Latents, *, tiling: Tiling | None = None, progress: Progress = None) -> Video:
        """Turns latents into pictures and, if they and the model have it, sound.

        ``tiling`` bounds the memory of the pictures; None: tiles as in the reference. Latents that do not tell their
        frame rate become a clip of 24 frames per second. Raises InvalidRequestError for latents of another model and
        tiles that do not advance, ModelMismatchError without a decoder, OutOfMemoryError, BackendError or Cancelled.
        """
        self.check_latents(latents)
        job = VideoJob(Request("", tiling=tiling), latents=latents)
        self._run_one("decode", job, progress)
        assert job.video is not None
        return job.video

    def check_latents(self, latents: Latents) -> None:
        """Raises the InvalidRequestError that :meth:`decode` would raise for latents that are not of this model."""
        _arguments.instance("decode", "latents", latents, Latents, "made by sample() or Latents.load()")
        self._core.check_latents(latents.video.shape, None if latents.audio is None else latents.audio.shape)

    def decode_audio(self, latents: Latents, *, progress: Progress = None) -> tuple[NDArray[np.float32], int] | None:
        """Returns the sound (channels, n), float32 in [-1, 1], and its sample rate in Hz.

        None if the latents have no sound or the model no vocoder. The reference makes 25 latent frames of sound per
        second, rounded to whole ones, so the sound is up to 50 ms shorter or longer than the pictures.
        """
        _arguments.instance("decode", "latents", latents, Latents, "made by sample() or Latents.load()")
        with heard("decode", progress) as callback:
            if latents.audio is None or not self.info.has_audio:
                return None
            return self._core.decode_audio(latents.audio, progress=callback)

    def encode_audio(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Turns sound into normalised audio latents (C, T, mel), 25 a second, as the transformer makes them.

        samples: (2, n), float32 in [-1, 1], or the integers of 16 or 32 bits that files hold; sample_rate: in Hz, up
        to a million. The opposite is :meth:`decode_audio`; neither is exact.

        Raises InvalidRequestError for sound that is not stereo or shorter than 33 ms, ModelMismatchError without an
        audio encoder.
        """
        from .sound import samples_of

        rate = _arguments.whole("sound", "sample_rate", sample_rate)
        if not 1 <= rate <= _FASTEST_SOUND:
            raise InvalidRequestError(f"[sound] a sample rate of {rate} Hz is out of range; use 1 to {_FASTEST_SOUND}")
        return self._core.encode_audio(samples_of("sound", samples), rate)

    def encode_video(
        self, frames: NDArray[np.uint8], *, tiling: Tiling | None = None, progress: Progress = None
    ) -> NDArray[np.float32]:
        """Turns pictures into normalised video latents (C, F', H/32, W/32), as the transformer makes them.

        frames: (F, H, W, 3) RGB bytes, sides multiples of 32, of which the first 8 (F' - 1) + 1 count. The opposite is
        :meth:`decode`; neither is exact.

        Raises InvalidRequestError for other shapes and tiles that do not advance, ModelMismatchError without a video
        encoder, OutOfMemoryError, BackendError or Cancelled.
        """
        import numpy as np

        values = np.asarray(frames)
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[3] != 3:
            raise InvalidRequestError(
                f"[encode] expected RGB bytes (F, H, W, 3) uint8, got {values.shape} {values.dtype}"
            )
        pieces = tiles("encode", tiling)
        with heard("encode", progress) as callback:
            return self._core.encode_video(np.ascontiguousarray(values), tiling=pieces, progress=callback)

    def decode_into(
        self, sink: Sink, latents: Latents, *, tiling: Tiling | None = None, progress: Progress = None
    ) -> None:
        """As :meth:`decode` for the pictures alone, but hands the frames to ``sink`` as they are ready.

        So a long clip need not fit in memory. An exception of the sink stops decoding and comes out unchanged.
        """
        _arguments.instance("decode", "latents", latents, Latents, "made by sample() or Latents.load()")
        pieces = tiles("decode", tiling)
        with heard("decode", progress) as callback:
            self._core.decode(latents.video, tiling=pieces, on_frames=sink.write_frames, progress=callback)

    @overload
    def generate(  # type: ignore[overload-overlap]  # a text is a list of texts, too
        self,
        prompt: str | Request,
        *,
        negative_prompt: str | None = None,
        noise: Latents | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        sound: Any | None = None,
        film: Any | None = None,
        references: Iterable[Any] | None = None,
        tiling: Tiling | None = None,
        progress: Progress = None,
        on_step: Callable[[int, int, Latents], object] | None = None,
        return_exceptions: bool = False,
        **options: Unpack[Options],
    ) -> Video: ...
    @overload
    def generate(
        self,
        prompt: Iterable[str | Request],
        *,
        negative_prompt: str | None = None,
        noise: Latents | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        sound: Any | None = None,
        film: Any | None = None,
        references: Iterable[Any] | None = None,
        tiling: Tiling | None = None,
        progress: Progress = None,
        on_step: Callable[[int, int, Latents], object] | None = None,
        return_exceptions: bool = False,
        **options: Unpack[Options],
    ) -> list[Any]: ...
    @explicit
    def generate(
        self,
        prompt: str | Request | Iterable[str | Request],
        *,
        negative_prompt: str | None = None,
        noise: Latents | None = None,
        image: Any | None = None,
        last_image: Any | None = None,
        conditions: Iterable[Condition] | None = None,
        sound: Any | None = None,
        film: Any | None = None,
        references: Iterable[Any] | None = None,
        tiling: Tiling | None = None,
        progress: Progress = None,
        on_step: Callable[[int, int, Latents], object] | None = None,
        return_exceptions: bool = False,
        **options: Unpack[Options],
    ) -> Any:
        """Makes a clip: :meth:`encode`, :meth:`sample` and :meth:`decode`, whose arguments these are.

        prompt: what the clip shows; or a :class:`sdltx.Request`, which has all but ``progress`` and ``on_step``; or a
            list of both, which gives a list of clips, made part of the model by part (see :meth:`run`).
        negative_prompt: what the clip is guided away from where guidance_scale is not 1; None: the model's.
        return_exceptions: of a list, give the exceptions of clips that failed in their places; else the first of them
            is raised when all others are done.

        If decoding fails or is stopped, the exception has the denoised clip as its attribute ``latents``.
        """
        _arguments.callback("generate", "on_step", on_step)
        given = {
            "negative_prompt": negative_prompt,
            "noise": noise,
            "image": image,
            "last_image": last_image,
            "conditions": conditions,
            "sound": sound,
            "film": film,
            "references": references,
            "tiling": tiling,
            **options,
        }
        if isinstance(prompt, (str, Request)):
            job = GeneratedJob(Request.of(prompt, given), on_step)
            self._run_one("generate", job, progress)
            assert job.video is not None
            return job.video
        if not isinstance(prompt, Iterable) or isinstance(prompt, (bytes, Mapping)):
            _arguments.refuse("encode", "prompt", "text, a Request, or a list of them", prompt)
        # Once, as iterators can be read but once.
        given = {name: list(value) if isinstance(value, Iterator) else value for name, value in given.items()}
        jobs = [GeneratedJob(Request.of(one, given), on_step) for one in prompt]
        self.run(jobs, progress=progress)
        failed = [job.error for job in jobs if job.error is not None]
        if failed and not return_exceptions:
            raise failed[0]
        return [job.error or job.video for job in jobs]

    @explicit
    def __call__(
        self,
        prompt: str | Request | Iterable[str | Request],
        *,
        generator: Any | None = None,
        num_videos_per_prompt: int = 1,
        output_type: str | None = None,
        callback_on_step_end: Callable[[Any, int, float, dict[str, Any]], object] | None = None,
        **arguments: Any,
    ) -> Any:
        """Makes clips as programs for diffusers ask for them; :meth:`generate` with its arguments and four more.

        generator: whose seed counts: a number, a Generator of NumPy or one of PyTorch.
        num_videos_per_prompt: clips of each prompt, with seeds that follow each other.
        output_type: None: a :class:`sdltx.Video`, or a list of them; else an :class:`sdltx.Output` with the list
            ``frames``, of each clip "np": float32 (F, H, W, 3) in [0, 1], "pil": a list of pictures, "latent":
            :class:`sdltx.Latents`.
        callback_on_step_end: called after each step as ``callback(pipe, step, timestep, {"latents": estimate})``, with
            the noise level times 1000 as the timestep. An exception that it raises ends the run.
        """
        from .diffusers_style import call

        return call(self, prompt, generator, num_videos_per_prompt, output_type, callback_on_step_end, arguments)

    def __getattr__(self, name: str) -> Any:
        from .diffusers_style import advice

        raise AttributeError(f"a Pipeline has no {name!r}{advice(name)}")

    @contextmanager
    def trace(self, *patterns: str) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Collects intermediate tensors by stage name: ``with pipe.trace("transformer_blocks.0.*") as traced: ...``.

        patterns: shell globs over the stage names, which are the reference's module paths. The dictionary, from name
        to float32 array, is filled when the block ends without an exception; the last run of a stage wins.
        """
        traced: dict[str, NDArray[np.float32]] = {}
        self._core.trace(patterns)
        try:
            yield traced
            traced.update(self._core.traced())
        finally:
            self._core.trace([])

    def __repr__(self) -> str:
        info = self.info
        kind = "distilled" if info.distilled else "full"
        return f"Pipeline({info.model} {info.version}, {kind}, on {self.device}, {', '.join(info.parts)})"
