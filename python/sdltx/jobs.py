"""What a run does with a request, and what becomes of it: subclasses of :class:`Job` say where its results go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _arguments, _core
from .errors import InvalidRequestError, SdltxError
from .images import frames_of, pixels
from .material import core_material
from .options import ROWS, core_options
from .request import Request, listed
from .values import Context, Latents, Tiling, Video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    from ._lazy import NDArray, np


_FRAME_RATE = Video.frame_rate  # of latents that do not tell theirs


class Job:
    """A request on its way through :meth:`sdltx.Pipeline.run`. The run calls what here is empty.

    SdltxError and OSError that a method raises end this job alone; other exceptions end the run.
    """

    pictures = True
    """Whether pictures are decoded."""
    sound = True
    """Whether sound is decoded, if there is any."""
    sound_first = False
    """Whether it is told before the pictures, for who has to know whether there is any."""

    def __init__(
        self,
        request: Request,
        *,
        context: Context | None = None,
        negative: Context | None = None,
        latents: Latents | None = None,
    ) -> None:
        """context, negative: prompts that need not be encoded; latents: a clip that need not be denoised."""
        self.request = _arguments.instance("run", "request", request, Request, "what the clip is to be")
        for name, value, kind in (
            ("context", context, Context),
            ("negative", negative, Context),
            ("latents", latents, Latents),
        ):
            if value is not None:
                _arguments.instance("run", name, value, kind, "or None")
        self.context = context
        self.negative = negative
        self.latents = latents
        self.error: BaseException | None = None
        """What it ended with."""
        self.tiling = self.request.tiling
        """What it was decoded in, unless in the tiles of the reference."""

    @property
    def num_frames(self) -> int:
        """Pictures of the clip, once it is denoised; of sound alone as many as it lasts."""
        assert self.latents is not None
        decoded = 8 * (int(self.latents.video.shape[1]) - 1) + 1
        told = self.latents.settings.get("result_frames")
        # What a file says is believed where it can be. A film that goes on is longer than what was made of it.
        if not isinstance(told, int) or isinstance(told, bool) or told < 1:
            return decoded
        return told if told <= decoded or self.request.film is not None else decoded

    def on_started(self) -> None:
        """The run has begun, perhaps again."""

    def on_step(self, done: int, steps: int, estimate: Latents) -> None:
        """After each step, with what the finished clip is taken to be so far."""

    def on_encoded(self) -> None:
        """Its contexts are there, for a class that has this method."""

    def on_denoised(self) -> None:
        """Its latents are there."""

    def on_sound(self, sound: tuple[NDArray[np.float32], int] | None) -> None:
        """Its sound; None: there is none."""

    def on_tiles(self, tiling: Tiling) -> None:
        """Its pictures are decoded in other tiles than by default, as memory is short; before the first of them."""
        self.tiling = tiling

    def on_frames(self, frames: NDArray[np.uint8]) -> None:
        """The next of its pictures (n, H, W, 3)."""

    def on_decoded(self) -> None:
        """All of it has been told."""

    def on_finished(self) -> None:
        """It is done, or ``error`` says why not."""


class VideoJob(Job):
    """Keeps the clip in memory."""

    video: Video | None = None
    _done = 0
    _frames: NDArray[np.uint8] | None = None
    _samples: NDArray[np.float32] | None = None
    _rate: int | None = None

    def on_started(self) -> None:
        """Forgets what a run before has left."""
        self.video = None
        self._frames, self._done, self._samples, self._rate = None, 0, None, None

    def on_sound(self, sound: tuple[NDArray[np.float32], int] | None) -> None:
        """Keeps it."""
        if sound is not None:
            self._samples, self._rate = sound

    def on_frames(self, frames: NDArray[np.uint8]) -> None:
        """Puts them where they belong."""
        import numpy as np

        assert self.latents is not None
        if self._frames is None:
            self._frames = np.empty((self.num_frames, *frames.shape[1:]), np.uint8)
        self._frames[self._done : self._done + len(frames)] = frames
        self._done += len(frames)

    def on_decoded(self) -> None:
        """Makes the clip of it."""
        import numpy as np

        assert self.latents is not None
        if self._frames is None:  # sound alone
            self._frames = np.empty((0, 0, 0, 3), np.uint8)
        settings = decoded_settings(self.latents, self.tiling)
        rate = self.latents.frame_rate or _FRAME_RATE
        self.video = Video(self._frames, self._samples, self._rate, rate, settings)
        self._frames = self._samples = None


def decoded_settings(latents: Latents, tiling: Tiling | None) -> dict[str, Any]:
    """Returns what a clip of these latents remembers: also the tiles that it was decoded in, if they were given."""
    return dict(latents.settings) if tiling is None else {**latents.settings, "tiling": list(tiling)}


def hears(job: Job, method: str) -> bool:
    """Whether a method was given another meaning: telling it costs a copy of what is told."""
    return method in vars(job) or getattr(type(job), method) is not getattr(Job, method)


class SampledJob(Job):
    """Ends with latents."""

    pictures = sound = False

    def __init__(self, request: Request, on_step: Callable[[int, int, Latents], object] | None, **given: Any) -> None:
        super().__init__(request, **given)
        if on_step is not None:
            _arguments.callback("sample", "on_step", on_step)
            self.on_step = on_step  # type: ignore[method-assign, assignment]


class GeneratedJob(VideoJob):
    """Ends with a clip in memory, and tells a function of its steps."""

    def __init__(self, request: Request, on_step: Callable[[int, int, Latents], object] | None) -> None:
        super().__init__(request)
        if on_step is not None:
            self.on_step = on_step  # type: ignore[method-assign, assignment]


class Maker(NamedTuple):
    """What a clip tells of the model that made it."""

    info: Mapping[str, Any]
    files: list[str]
    device: str
    precision: str


def ready_jobs(crf: int, given: Iterable[Job]) -> tuple[list[Job], list[_core.Job]]:
    """Returns the jobs whose pictures can be read, and what the core takes of them; the others end here.

    crf: how much H.264 spoils pictures that do not tell. Raises InvalidRequestError for what is no job.
    """
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        _arguments.refuse("run", "jobs", "a list of sdltx.jobs.Job", given)
    given = list(given)
    for job in given:
        _arguments.instance("run", "jobs", job, Job, "of a Request")
    if len({id(job) for job in given}) < len(given):
        raise InvalidRequestError("[run] a job is there twice; make one for each clip")
    jobs, ready = [], []
    for job in given:
        try:
            job.error, job.tiling = None, job.request.tiling
            job.on_started()
            ready.append(core_job(crf, job))
            jobs.append(job)
        except (SdltxError, OSError) as error:
            job.error = error
            job.on_finished()
    return jobs, ready


def planned(request: Request) -> _core.Job:
    """Returns what is asked for as the core takes it where nothing is run: of pictures and films their sizes alone."""
    material = core_material(request.sound, request.film, sizes_alone=True)
    return _core.Job(
        _options(request),
        conditions=frames_of(request.conditions),
        initial=None if request.initial is None else (request.initial.video, request.initial.audio),
        given_sound=material["sound"],
        given_film=material["film"],
        references=[one.as_core(sizes_alone=True) for one in request.references],
    )


def _options(request: Request) -> _core.ClipOptions:
    texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
    tiles: dict[str, Any] = {} if request.tiling is None else {"tiling": list(request.tiling)}
    more = {name: value for name, value in {**texts, **tiles}.items() if value is not None}
    return core_options(request.options, more)


def core_job(crf: int, job: Job) -> _core.Job:
    """Returns it as the core takes it; reads its pictures, sound and film."""
    request = job.request
    arrays: dict[str, Any] = {
        name: None if value is None else (value.video, value.audio)
        for name, value in (
            ("noise", request.noise),
            ("initial", request.initial),
            ("context", job.context),
            ("negative", job.negative),
            ("latents", job.latents),
        )
    }
    pictures = [] if job.latents else [(pixels(one, crf), None, one.frame, one.strength) for one in request.conditions]
    material = core_material(request.sound, request.film)
    return _core.Job(
        _options(request),
        conditions=pictures,
        given_sound=material["sound"],
        given_film=material["film"],
        references=[one.as_core(sizes_alone=False) for one in request.references],
        pictures=job.pictures,
        sound=job.sound,
        sound_first=job.sound_first,
        **arrays,
    )


def is_guided(plan: Mapping[str, Any]) -> bool:
    """Whether a negative prompt counts in what a request resolves to."""
    return bool(plan["guidance_scale"] != 1 or plan["audio_guidance_scale"] != 1)


def has_latents(plan: Mapping[str, Any]) -> bool:
    """Whether a clip has latents of its own: what is made of windows has none of the whole."""
    return bool(plan["task"] != "extend")


def _is_told(name: str) -> bool:
    """Whether a clip tells an option as it was given."""
    return ROWS[name]["remembered"] and ROWS[name]["group"] in ("material", "enhancement")


def remembered(maker: Maker, job: Job, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a clip tells of how it was made, so that it can be made again."""
    request, options = job.request, job.request.options
    files = {
        "upscalers": plan["upscalers"],
        "distilled_lora": plan["distilled_lora"],
        "loras": [list(one) for one in options.get("loras", ())],
        "recipe": options.get("recipe"),
    }
    if "loras_stage2" in options:
        files["loras_stage2"] = [list(one) for one in options["loras_stage2"]]
    derived = ("stages", *files)
    sigmas = None if "sigmas" not in options else list(options["sigmas"])
    # Prompts of contexts that were given are known if they came from encode().
    prompt = request.prompt if job.context is None else job.context.prompt
    negative = request.negative_prompt if job.negative is None else job.negative.prompt
    if negative is None and job.negative is None:
        negative = maker.info["negative_prompt"]
    settings = {
        "sdltx_version": _core.__version__,
        "model": maker.info["model"],
        "model_version": maker.info["version"],
        "model_files": maker.files,
        "device": maker.device,
        "precision": maker.precision,
        "prompt": prompt,
        "negative_prompt": negative if is_guided(plan) else None,
        **{name: value for name, value in plan.items() if name not in derived},
        "num_inference_steps": plan["num_inference_steps"] if sigmas is None else None,
        "sigmas": sigmas,
        **{name: value for name, value in files.items() if value or name == "loras_stage2"},
        **{name: listed(value) for name, value in options.items() if _is_told(name)},
    }
    for name, value in (("sound", request.sound), ("film", request.film)):
        if value is not None:
            settings[name] = value.to_dict()
    if request.references:
        settings["references"] = [one.to_dict() for one in request.references]
    if request.conditions:
        settings["images"] = [one.to_dict() for one in request.conditions]
    # What they were cannot be told, so that nobody takes the rest for a recipe.
    given = {"initial": request.initial is not None, "noise": request.noise is not None}
    return settings | {name: True for name, there in given.items() if there}
