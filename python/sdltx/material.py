"""What a clip is made from besides its prompt and pictures: a sound, or a film."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._files import sha256_of
from .errors import InvalidRequestError
from .values import Video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = tuple[NDArray[np.float32], int]
else:
    from ._lazy import NDArray, np

    Samples = tuple

_FASTEST = 1_000_000  # samples per second
_LONGEST_CLIP = 600.0  # seconds, longer than any; of a sound no more is read
# Files that hold one picture.
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".tga", ".jp2", ".qoi"}
_PICTURES |= {".heic", ".heif", ".avif"}


def _sum_of(source: Any) -> str | None:
    """The checksum of what is a file."""
    return sha256_of(source) if isinstance(source, (str, os.PathLike)) else None


def _file_told(path: str | os.PathLike[str], known: str | None) -> dict[str, Any]:
    """A file as a clip remembers it, so that another one under this name is noticed. known: its checksum, if it is."""
    told: dict[str, Any] = {"path": os.fspath(path)}
    if (checksum := known or sha256_of(path)) is not None:
        told["sha256"] = checksum
    return told


def _mask_told(name: str, mask: Any, known: str | None) -> dict[str, Any]:
    if not isinstance(mask, (str, os.PathLike)):
        return {name: None}
    told = _file_told(mask, known)
    return {name: told["path"], f"{name}_sha256": told.get("sha256")}


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound that pictures are made for. It stays as it is, and is what the clip sounds like.

    One channel becomes both; of more than two the first two are taken. What is shorter than the clip is followed by
    silence.
    """

    source: str | os.PathLike[str] | tuple[Any, int]
    """A file, also a film, of whatever kind PyAV reads; or samples (channels, n) and their rate in Hz."""
    start: float = 0.0
    """Where the clip begins in it, in seconds."""
    _read: Samples | None = field(default=None, repr=False, kw_only=True)
    _told: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    _sums: tuple[str | None, str | None] = field(default=(None, None), repr=False, kw_only=True)

    def __post_init__(self) -> None:
        start = _arguments.real("audio", "start", self.start)
        if not start >= 0:
            raise InvalidRequestError(f"[audio] start {start:g} is before the sound begins; use 0 or more seconds")
        object.__setattr__(self, "start", start)
        if isinstance(self.source, (str, os.PathLike)):
            _arguments.path("audio", self.source)
            return
        object.__setattr__(self, "_read", _samples_of(self.source, start))

    @classmethod
    def of(cls, value: Any) -> Sound:
        """Returns what is given for a sound: one of these, a file, or samples and their rate."""
        return value if isinstance(value, cls) else cls(value)

    def loaded(self) -> Sound:
        """Returns the same, read already. Raises InvalidRequestError for a file without sound."""
        if self._read is not None:
            return self
        from ._readers import read_audio

        assert isinstance(self.source, (str, os.PathLike))
        read = read_audio(self.source, start=self.start, duration=_LONGEST_CLIP)
        return replace(self, _read=read, _sums=(_sum_of(self.source), None))

    @property
    def samples(self) -> Samples:
        """Samples (2, n) from its start, and their rate. Reads the file."""
        read = self.loaded()._read
        assert read is not None
        return read

    def to_dict(self) -> dict[str, Any]:
        """Returns what a clip remembers of it; ``path`` is None for what is no file."""
        is_file = isinstance(self.source, (str, os.PathLike))
        return {**(_file_told(self.source, self._sums[0]) if is_file else {"path": None}), "start": self.start}  # type: ignore[arg-type]


def _samples_of(source: Any, start: float) -> Samples:
    import numpy as np

    from .sound import samples_of

    if not isinstance(source, tuple) or len(source) != 2:
        _arguments.refuse("audio", "sound", "a file, or samples (channels, n) and their rate", source)
    rate = _arguments.whole("audio", "sample rate", source[1])
    if not 1 <= rate <= _FASTEST:
        raise InvalidRequestError(f"[audio] a sample rate of {rate} Hz is out of range; use 1 to {_FASTEST}")
    samples = samples_of("audio", source[0])[:, round(start * rate) :]
    if 0 in samples.shape:
        raise InvalidRequestError(f"[audio] the sound has no samples at {start:g} s")
    return np.array(samples[[0, min(1, len(samples) - 1)]], np.float32, order="C"), rate


@dataclass(frozen=True, eq=False)
class Film:
    """A film that a clip is made from: some of it stays, some is made anew."""

    source: str | os.PathLike[str] | Video
    """A file, of whatever kind PyAV reads, or a clip."""
    mask: Any | None = None
    """Where its pictures are made anew, by brightness: a film or a picture, see :class:`Reference`.
    Whole cells of 32x32 pixels and 8 frames change, those that are bright for more than half."""
    _read: Video | None = field(default=None, repr=False, kw_only=True)
    _told: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    _sums: tuple[str | None, str | None] = field(default=(None, None), repr=False, kw_only=True)
    _mask: NDArray[np.uint8] | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.source, (str, os.PathLike)):
            _arguments.path("video", self.source)
        else:
            source = _arguments.instance("video", "film", self.source, Video, "or a file")
            object.__setattr__(self, "_read", source)
        if isinstance(self.mask, (str, os.PathLike)):
            _arguments.path("mask", self.mask)

    @classmethod
    def of(cls, value: Any) -> Film:
        """Returns what is given for a film: one of these, a file, or a clip."""
        return value if isinstance(value, cls) else cls(value)

    def loaded(self) -> Film:
        """Returns the same, read already. Raises InvalidRequestError for a file without pictures."""
        if self.mask is not None and self._mask is None:
            sums = (self._sums[0], _sum_of(self.mask))
            return replace(self, _mask=_brightness(_pictures_of(self.mask)[0]), _sums=sums).loaded()
        if self._read is not None:
            return self
        from ._readers import has_sound, read_audio, read_frames

        assert isinstance(self.source, (str, os.PathLike))
        frames, rate = read_frames(self.source)
        samples, sample_rate = None, None
        if has_sound(self.source):
            samples, sample_rate = read_audio(self.source)
        sums = (_sum_of(self.source), self._sums[1])
        return replace(self, _read=Video(frames, samples, sample_rate, rate), _sums=sums)

    @property
    def video(self) -> Video:
        """Its pictures and sound. Reads the file."""
        read = self.loaded()._read
        assert read is not None
        return read

    def to_dict(self) -> dict[str, Any]:
        """Returns what a clip remembers of it; ``path`` is None for what is no file."""
        is_file = isinstance(self.source, (str, os.PathLike))
        told: dict[str, Any] = _file_told(self.source, self._sums[0]) if is_file else {"path": None}  # type: ignore[arg-type]
        if self.mask is not None:
            told |= _mask_told("mask", self.mask, self._sums[1])
        return told


@dataclass(frozen=True, eq=False)
class Reference:
    """A film that a clip follows, as a LoRA for such references (IC-LoRA) was trained to: see docs/references.md.

    It is scaled to cover the clip and cut on both sides; as many of its pictures count as the clip has, one by one.
    """

    source: str | os.PathLike[str] | Any
    """A film's file, or a clip; or a picture, which is there all the time: a file, one of Pillow or RGB bytes."""
    strength: float = 1.0
    """1: it stays as it is; less: it is noised and denoised along with the clip."""
    attention: str | os.PathLike[str] | Any | None = None
    """How strongly each of its pixels and the clip see each other, by brightness: a film or a picture as above."""
    _read: tuple[NDArray[np.uint8], bool] | None = field(default=None, repr=False, kw_only=True)
    _told: dict[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    _sums: tuple[str | None, str | None] = field(default=(None, None), repr=False, kw_only=True)
    _mask: NDArray[np.uint8] | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        strength = _arguments.real("reference", "strength", self.strength)
        if not 0 <= strength <= 1:
            raise InvalidRequestError(f"[reference] strength {strength:g} is not between 0 and 1")
        object.__setattr__(self, "strength", strength)
        for value in (self.source, self.attention):
            if isinstance(value, (str, os.PathLike)):
                _arguments.path("reference", value)

    @classmethod
    def of(cls, value: Any) -> Reference:
        """Returns what is given for a reference: one of these, or its source."""
        return value if isinstance(value, cls) else cls(value)

    def loaded(self) -> Reference:
        """Returns the same, read already. Raises InvalidRequestError for what is neither film nor picture."""
        if self._read is not None:
            return self
        grey = None if self.attention is None else _brightness(_pictures_of(self.attention)[0])
        sums = (_sum_of(self.source), _sum_of(self.attention))
        return replace(self, _read=_pictures_of(self.source), _mask=grey, _sums=sums)

    def to_dict(self) -> dict[str, Any]:
        """Returns what a clip remembers of it; ``path`` is None for what is no file."""
        is_file = isinstance(self.source, (str, os.PathLike))
        told = {**(_file_told(self.source, self._sums[0]) if is_file else {"path": None}), "strength": self.strength}
        if self.attention is not None:
            told |= _mask_told("attention", self.attention, self._sums[1])
        return told

    def as_core(self, *, sizes_alone: bool) -> dict[str, Any]:
        """Returns it as the core takes it. sizes_alone: for what is planned, not run."""
        return _sizes(self) if sizes_alone else self._as_core()

    def _as_core(self) -> dict[str, Any]:
        read = self.loaded()
        assert read._read is not None
        frames, still = read._read
        return {
            "frames": frames,
            "shape": frames.shape[:3],
            "still": still,
            "strength": self.strength,
            "attention": read._mask,
            "attention_shape": None if read._mask is None else read._mask.shape,
        }


def _brightness(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of the colours."""
    import numpy as np

    return np.asarray(pictures.astype(np.float32).mean(axis=3) + 0.5, np.float32).astype(np.uint8)


def _pictures_of(source: Any) -> tuple[NDArray[np.uint8], bool]:
    """Pictures (F, H, W, 3) of a film; or of a picture, and that it is one."""
    from . import images
    from ._readers import read_frames

    if isinstance(source, Video):
        return source.frames, False
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() not in _PICTURES:
        return read_frames(source)[0], False
    return images.read(source)[None], True


def _sizes(one: Sound | Film | Reference) -> dict[str, Any]:
    """Its sizes as the core takes them, for which its file is read but once."""
    if not one._told:
        if isinstance(one, Reference):
            told = one._as_core()
        else:
            name = "sound" if isinstance(one, Sound) else "film"
            told = core_material(*((one, None) if isinstance(one, Sound) else (None, one)))[name]
        one._told.update(_without_values(told))
    return dict(one._told)


def _without_values(told: dict[str, Any]) -> dict[str, Any]:
    plain = {name: None if hasattr(value, "shape") else value for name, value in told.items()}
    return {name: _without_values(value) if isinstance(value, dict) else value for name, value in plain.items()}


def core_material(sound: Sound | None, film: Film | None, *, sizes_alone: bool = False) -> dict[str, Any]:
    """Returns both as the core takes them. sizes_alone: for what is planned, not run."""

    if sizes_alone:
        return {"sound": None if sound is None else _sizes(sound), "film": None if film is None else _sizes(film)}

    def heard(samples: NDArray[np.float32], rate: int) -> dict[str, Any]:
        return {"samples": samples, "length": samples.shape[1], "rate": rate}

    told: dict[str, Any] = {"sound": None if sound is None else heard(*sound.samples), "film": None}
    if film is not None:
        film = film.loaded()
        video = film.video
        told["film"] = {
            "frames": video.frames,
            "shape": video.frames.shape[:3],
            "frame_rate": float(video.frame_rate),
            "sound": None,
            "mask": None,
            "mask_shape": None,
        }
        if (mask := film._mask) is not None:
            told["film"] |= {"mask": mask, "mask_shape": mask.shape}
        if video.audio is not None and video.sample_rate is not None:
            told["film"]["sound"] = heard(video.audio, video.sample_rate)
    return told
