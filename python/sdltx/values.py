"""The values of the data path: Context -> Latents -> Video. Their arrays are read-only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from . import _arguments, _core
from ._files import check_writable, replacing, target_of
from .errors import InvalidRequestError, ModelFileError
from .progress import Progress, heard
from .settings import CONTEXT_KEY, LATENTS_KEY, kept_settings, read_latents, read_values

if TYPE_CHECKING:  # numpy takes most of the time of an import; it is loaded with the first array instead
    from fractions import Fraction

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from PIL.Image import Image
else:
    from ._lazy import ArrayLike, Fraction, Image, NDArray, np

_FASTEST_CLIP, _FASTEST_SOUND = 1000, 1_000_000  # pictures and samples per second


def read_only(name: str, array: ArrayLike, axes: str, dtype: str) -> NDArray[Any]:
    """Returns ``array`` as a C-contiguous read-only array of ``dtype``, copied only if it is not one already.

    ``axes`` is the layout as it is written in the docs, such as "(C, T, mel)". Another number of axes, or values that
    ``dtype`` cannot hold (floats for uint8), raise InvalidRequestError.
    """
    import numpy as np

    given = np.asarray(array)
    # Whole numbers of another width are other pictures.
    rule: Literal["safe", "same_kind"] = "safe" if dtype == "uint8" else "same_kind"
    if given.ndim != axes.count(",") + 1 or not np.can_cast(given.dtype, dtype, rule):
        raise InvalidRequestError(f"[{name}] expected {axes} {dtype}, got {given.shape} {given.dtype}")
    result: NDArray[Any] = np.ascontiguousarray(
        given, dtype=dtype
    ).view()  # a view: the caller's own array stays writeable
    result.flags.writeable = False
    return result


class Tiling(NamedTuple):
    """The pieces that the video VAE decodes one at a time: less memory, more time. Defaults as in the reference."""

    size: int = _core.default_tiling[0]
    """Longer side of a tile in pixels, a multiple of 32; 0: not cut."""
    overlap: int = _core.default_tiling[1]
    """Pixels that neighbouring tiles share and blend over, a multiple of 32."""
    frames: int = _core.default_tiling[2]
    """Length of a tile in frames, a multiple of 8; 0: not cut."""
    frame_overlap: int = _core.default_tiling[3]
    """Frames that consecutive tiles share, a multiple of 8."""


def tiles(where: str, tiling: Any) -> tuple[int, int, int, int] | None:
    """Returns tiles as the core takes them. Raises InvalidRequestError for another kind."""
    if tiling is None:
        return None
    if not isinstance(tiling, tuple) or len(tiling) != len(Tiling._fields):
        _arguments.refuse(where, "tiling", f"Tiling({', '.join(Tiling._fields)})", tiling)
    size, overlap, frames, frame_overlap = (
        _arguments.whole(where, f"tile {name}", value) for name, value in zip(Tiling._fields, tiling, strict=True)
    )
    return size, overlap, frames, frame_overlap


class _Value:
    """Comes out of a copy or a pickle as it comes out of its constructor: checked, and its arrays read-only."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __post_init__(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Context(_Value):
    """A prompt as the transformer attends to it."""

    video: NDArray[np.float32]
    """(rows, width), float32: what the video stream attends to."""
    audio: NDArray[np.float32]
    """(rows, width), float32: what the audio stream attends to."""
    prompt: str | None = None
    """The text it was made from, if known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "video", read_only("context video", self.video, "(rows, width)", "float32"))
        object.__setattr__(self, "audio", read_only("context audio", self.audio, "(rows, width)", "float32"))
        if self.prompt is not None:
            _arguments.instance("context", "prompt", self.prompt, str, "or None")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file: tensors video and audio, metadata "sdltx.context" (the prompt, JSON).

        So a prompt need not be encoded again; it belongs to the text encoder and transformer that it was made with. An
        existing file is replaced. Raises InvalidRequestError for a path that cannot be written, BackendError if the
        disk fails.
        """
        from safetensors.numpy import save

        path = _arguments.path("context", path)
        with replacing(path) as temporary:
            told = {CONTEXT_KEY: json.dumps({"prompt": self.prompt})}
            temporary.write_bytes(save({"video": self.video, "audio": self.audio}, told))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Context:
        """Reads what :meth:`save` wrote. Raises ModelFileError if the file is missing, damaged or of another kind."""
        tensors, told = read_values(path, CONTEXT_KEY, "context")
        try:
            return cls(tensors["video"], tensors["audio"], told["prompt"])
        except (LookupError, TypeError, ValueError) as error:
            raise ModelFileError(f"[context] {path} is damaged: {error}") from None

    def __repr__(self) -> str:
        return f"Context(video={self.video.shape}, audio={self.audio.shape}, prompt={_shorten(self.prompt)})"


@dataclass(frozen=True, eq=False, repr=False)
class Latents(_Value):
    """A clip in the normalised latent space of the VAEs; also the form in which start noise is given."""

    video: NDArray[np.float32]
    """(C, F', H', W'), float32: channels, latent frames, rows, columns. Of sound alone (C, 0, H', W')."""
    audio: NDArray[np.float32] | None = None
    """(C, T, mel), float32: channels, latent time steps, mel bins; None for a clip without sound."""
    frame_rate: float = 0.0
    """Frames per second of the decoded clip, at most 1000; 0 if not known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the clip was made: prompt, seed, sizes, steps, model. Stored with the latents and in the finished file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "video", read_only("latents video", self.video, "(C, F', H', W')", "float32"))
        if self.audio is not None:
            object.__setattr__(self, "audio", read_only("latents audio", self.audio, "(C, T, mel)", "float32"))
        rate = _arguments.number("latents", "frame_rate", self.frame_rate)
        if rate is None or not 0 <= rate <= 1000:
            raise InvalidRequestError(f"[latents] frame_rate {rate} is out of range; use 0 (not known) to 1000")
        object.__setattr__(self, "frame_rate", rate)
        if not isinstance(self.settings, Mapping):
            _arguments.refuse("latents", "settings", "a dictionary", self.settings)

    @property
    def seed(self) -> int | None:
        """The seed of the start noise; None if all of the noise was given."""
        return self.settings.get("seed")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file: tensors video and audio, metadata "sdltx.latents" (frame_rate and settings, JSON).

        An existing file is replaced if it holds latents. Raises InvalidRequestError for one that holds something else
        or cannot be written, BackendError if the disk fails.
        """
        from safetensors.numpy import save

        check_latents_output(path)
        tensors = {"video": self.video} if self.audio is None else {"video": self.video, "audio": self.audio}
        # One key only: safetensors writes several in random order, and the same latents should give the same bytes.
        metadata = {LATENTS_KEY: json.dumps({"frame_rate": self.frame_rate, "settings": dict(self.settings)})}
        with replacing(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Latents:
        """Reads what :meth:`save` wrote. Raises ModelFileError if the file is missing, damaged or of another kind."""
        tensors, told = read_latents(path)
        try:
            return cls(tensors["video"], tensors.get("audio"), told["frame_rate"], told["settings"])
        except (LookupError, TypeError, ValueError) as error:
            raise ModelFileError(f"[latents] {path} is damaged: {error}") from None

    def __repr__(self) -> str:
        audio = None if self.audio is None else self.audio.shape
        return f"Latents(video={self.video.shape}, audio={audio}, frame_rate={self.frame_rate:g}, seed={self.seed})"


@dataclass(frozen=True, eq=False, repr=False)
class Video(_Value):
    """A finished clip: pictures and, if the model made some, sound."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3), uint8: RGB pictures."""
    audio: NDArray[np.float32] | None = None
    """(channels, samples), float32 in [-1, 1]; None for a silent clip."""
    sample_rate: int | None = None
    """Samples per second of ``audio`` in Hz; None for a silent clip."""
    frame_rate: float | Fraction = 24.0
    """Frames per second."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """How the clip was made (see :attr:`Latents.settings`); :meth:`save` stores it in the file."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", read_only("video frames", self.frames, "(F, H, W, 3)", "uint8"))
        if self.audio is not None:
            from .sound import samples_of

            if self.sample_rate is None:
                raise InvalidRequestError("[video audio] sound needs its sample_rate")
            samples = samples_of("video audio", self.audio)
            object.__setattr__(self, "audio", read_only("video audio", samples, "(channels, samples)", "float32"))
        rate = _arguments.integer("video", "sample_rate", self.sample_rate)
        if rate is not None and not 1 <= rate <= _FASTEST_SOUND:
            raise InvalidRequestError(f"[video] sample_rate {rate} is out of range; use 1 to {_FASTEST_SOUND} Hz")
        if not 0 < _arguments.real("video", "frame_rate", self.frame_rate) <= _FASTEST_CLIP:
            raise InvalidRequestError(
                f"[video] frame_rate {self.frame_rate} is out of range; use up to {_FASTEST_CLIP}"
            )
        if not isinstance(self.metadata, Mapping):
            _arguments.refuse("video", "metadata", "a dictionary", self.metadata)

    @property
    def seed(self) -> int | None:
        """The seed of the start noise; None if all of the noise was given."""
        return self.metadata.get("seed")

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: str = "full",
        overwrite: bool = False,
        progress: Progress = False,
    ) -> None:
        """Writes the clip; the suffix decides how: .mp4, .webm, .gif, .webp, .png (a file per frame), .wav (its sound).

        The sound is cut, or filled with silence, to the length of the pictures. An existing file is replaced; a run
        that fails or is interrupted leaves it untouched. ``progress`` gets ("write", done, total) while the file is
        finished; False: nobody hears of it.

        metadata: what the file tells of :attr:`metadata`: "full", "plain" (no folders of files) or "none".
        overwrite: of a picture per frame, also replace pictures that are not from sdltx.

        Raises InvalidRequestError for a path that cannot be written or a suffix that is not known, BackendError if an
        encoder is missing or the disk fails.
        """
        from . import sound
        from .media import VideoWriter, fit_audio

        told = kept_settings(self.metadata, metadata)
        if sound.is_sound(path):
            if self.audio is None or self.sample_rate is None:
                raise InvalidRequestError(f"[output] the clip has no sound for {path}; choose another suffix")
            fitted = self.audio
            if len(self.frames):
                fitted = fit_audio(self.audio, self.sample_rate, len(self.frames), self.frame_rate)
            sound.write(path, fitted, self.sample_rate, metadata=told)
            return
        with (
            heard("output", progress) as callback,
            VideoWriter(
                path,
                self.frame_rate,
                audio_rate=self.sample_rate,
                metadata=told,
                overwrite=overwrite,
                progress=callback,
            ) as writer,
        ):
            if self.audio is not None and self.sample_rate is not None:
                writer.write_audio(fit_audio(self.audio, self.sample_rate, len(self.frames), self.frame_rate))
            writer.write_frames(self.frames)

    def to_pil(self) -> list[Image]:
        """Returns its pictures as Pillow has them."""
        from PIL import Image

        return [Image.fromarray(frame) for frame in self.frames]

    def show(self) -> None:
        """Shows it: in a notebook below its cell, else with the program that the system has for mp4 files."""
        from .display import show

        show(self)

    def _repr_html_(self) -> str:
        """As a notebook shows it: with its sound, and controls."""
        from .display import html

        return html(self)

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        sound = "silent" if self.audio is None else f"{len(self.audio)} channels at {self.sample_rate} Hz"
        return f"Video({count} frames, {width}x{height}, {float(self.frame_rate):g} fps, {sound}, seed={self.seed})"


def check_latents_output(path: str | os.PathLike[str]) -> None:
    """Raises what :meth:`Latents.save` would: call it before a long run."""
    target = target_of(path)
    if target.suffix.lower() != ".safetensors":
        raise InvalidRequestError(f"[latents] {path} must end in .safetensors, as it becomes such a file")
    if target.exists() and target.stat().st_size:
        try:
            Latents.load(target)
        except ModelFileError:
            raise InvalidRequestError(
                f"[latents] {path} exists and holds no latents, it may be a model; choose another name"
            ) from None
    check_writable(target)


def _shorten(text: str | None, limit: int = 60) -> str:
    return repr(text if text is None or len(text) <= limit else f"{text[: limit - 3]}...")
