"""Clips on disk: writing them piece by piece, and reading back the settings they were made with."""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arguments, sound
from ._encoders import FORMATS, Format
from ._files import (
    become_all,
    check_name,
    check_writable,
    exists,
    failures_named,
    is_file,
    remove_temporary,
    target_of,
    temporary_beside,
)
from ._readers import read_audio
from ._readers import read_frames as read_video
from .errors import BackendError, InvalidRequestError, ModelFileError, shortened
from .progress import Callback
from .settings import kept_settings, read_latents

__all__ = [
    "VideoWriter",
    "check_output",
    "exact_frame_rate",
    "fit_audio",
    "kept_settings",
    "output_files",
    "place_files",
    "read_audio",
    "read_settings",
    "read_video",
    "takes_pictures",
    "takes_sound",
]

_NTSC_RATES = [Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)]


def exact_frame_rate(frame_rate: float | Fraction) -> Fraction:
    """Returns frames per second as the fraction that is meant: 23.976 (and 23.98) is 24000/1001, 12.5 is 25/2.

    Raises InvalidRequestError unless 0 < frame_rate <= 1000.
    """
    if not (math.isfinite(frame_rate) and 0 < frame_rate <= 1000):
        raise InvalidRequestError(f"[output] frame rate {frame_rate} is out of range; use more than 0 and at most 1000")
    exact = Fraction(frame_rate)
    if exact.denominator <= 1001:
        return exact
    return next((rate for rate in _NTSC_RATES if abs(rate - exact) < 0.005), exact.limit_denominator(1001))


def fit_audio(
    samples: NDArray[np.float32], sample_rate: int, num_frames: int, frame_rate: float | Fraction
) -> NDArray[np.float32]:
    """Cuts (channels, n) samples to the length of ``num_frames`` pictures, or fills them with silence."""
    length = round(num_frames / exact_frame_rate(frame_rate) * sample_rate)
    missing = max(length - samples.shape[1], 0)
    return np.pad(samples[:, :length], ((0, 0), (0, missing)))


def check_output(path: str | os.PathLike[str]) -> None:
    """Raises what :class:`VideoWriter` would: call it before a long run.

    InvalidRequestError for an unknown suffix, a folder that is missing or not writable, or a name that is too long,
    also with the number of a frame; BackendError for an encoder that the installed PyAV or Pillow lacks.
    """
    if sound.is_sound(path):
        sound.check_output(path)
        return
    format = _format(Path(path))
    format.check()
    check_name(format.longest_name(Path(path).absolute()))
    check_writable(path)


def output_files(path: str | os.PathLike[str], num_frames: int, *, overwrite: bool = False) -> list[Path]:
    """Returns the files that a clip of this name and length becomes: one, or one for each of its pictures.

    Raises InvalidRequestError for one that cannot be written, and for one whose name was not given but made (of picture
    sequences) that is there already and not from sdltx, unless ``overwrite``.
    """
    if sound.is_sound(path):
        return [target_of(path)]
    return _files_of(_format(Path(path)), target_of(path), num_frames, overwrite)


def _files_of(format: Format, target: Path, num_frames: int, overwrite: bool) -> list[Path]:
    files = format.names(target, num_frames)
    for file in files:
        if file == target:
            continue
        target_of(file)
        if exists(file) and not overwrite and not format.is_ours(file):
            raise InvalidRequestError(
                f"[output] {file} is there and not from sdltx; choose another name, or allow it (overwrite)"
            )
    return files


def place_files(
    path: str | os.PathLike[str], files: Sequence[bytes], num_frames: int, *, overwrite: bool
) -> list[Path]:
    """Gives a clip that was made elsewhere its name; returns its files, which are those of :func:`output_files`.

    Raises InvalidRequestError for one that must not be replaced, BackendError if the disk fails.
    """
    targets = output_files(path, num_frames, overwrite=overwrite)
    written: list[tuple[Path, Path]] = []
    try:
        with failures_named(path):
            for target, content in zip(targets, files, strict=True):
                written.append((temporary_beside(target), target))
                written[-1][0].write_bytes(content)
            become_all(written)
            if not sound.is_sound(path):
                _format(Path(path)).remove_leftovers(target_of(path), num_frames)
    finally:
        for temporary, _ in written:
            remove_temporary(temporary)
    return targets


def takes_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a clip of this name has sound; the others drop it. Raises InvalidRequestError for an unknown suffix."""
    return sound.is_sound(path) or _format(Path(path)).has_sound


def takes_pictures(path: str | os.PathLike[str]) -> bool:
    """Whether a clip of this name has pictures: all but .wav. Raises InvalidRequestError for an unknown suffix."""
    return not sound.is_sound(path) and _format(Path(path)) is not None


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the settings (see :attr:`sdltx.Latents.settings`) that are kept in a clip or latents written by sdltx.

    For a picture sequence give any of its files, or the name it was written under. Raises InvalidRequestError if the
    file is missing, unreadable or holds no settings.
    """
    import av

    file = Path(_arguments.path("settings", path))
    if exists(file) and not is_file(file):
        raise InvalidRequestError(f"[settings] {file} is no file")
    if file.suffix.lower() == ".safetensors":
        try:
            settings: dict[str, Any] = read_latents(file)[1]["settings"]
            return settings
        except ModelFileError as error:
            raise InvalidRequestError(str(error)) from None
    if file.suffix.lower() not in FORMATS and not sound.is_sound(file):
        raise InvalidRequestError(f"[settings] {str(path)!r} is no clip and no latents; give what sdltx wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large pictures
            text = sound.read_settings(file) if sound.is_sound(file) else _format(file).read_settings(file)
    except FileNotFoundError:
        raise InvalidRequestError(f"[settings] there is no file {file}") from None
    except Exception as error:  # what a broken file makes one of many formats raise
        # FFmpeg's own is of a file that asks for more than there can be.
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise
        reason = getattr(error, "strerror", None) or shortened(error)
        raise InvalidRequestError(f"[settings] cannot read {file}: {reason}") from None
    with suppress(TypeError, ValueError, RecursionError):
        settings = json.loads(text or "")
        if isinstance(settings, dict) and "sdltx_version" in settings:
            return settings
    raise InvalidRequestError(f"[settings] {file} holds no settings of sdltx; give a clip that sdltx wrote")


class VideoWriter:
    """Encodes a clip as its frames arrive; the file appears under its name only when it is complete.

    As a context manager it closes at the end of the block and aborts on any exception, KeyboardInterrupt included.

    path: the suffix decides: .mp4 (H.264, AAC), .webm (VP9, Opus), .gif, .webp (animated pictures, no sound), .png (one
        file per frame: name_0001.png, ..., or as a pattern like name_%03d.png says; a single frame is name.png itself).
        An existing file is replaced, and what is longer of an older sequence is removed; links are written through.
    frame_rate: frames per second; see :func:`exact_frame_rate`.
    audio_rate: sample rate in Hz of what :meth:`write_audio` gets; None: a silent clip. Formats without sound drop it.
    metadata: JSON-serialisable settings to keep in the file; :func:`read_settings` gets them back.
    overwrite: also replace files of a sequence that are not from sdltx.
    progress: called with ("write", frames done, frames) while the clip is finished in :meth:`close`.

    Raises the errors of :func:`check_output`. The size of the clip is that of its first frames.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        frame_rate: float | Fraction,
        *,
        audio_rate: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        progress: Callback | None = None,
    ) -> None:
        self._path = Path(path)
        self._target = target_of(path)
        self._overwrite = overwrite
        self._progress = progress
        self._shape: tuple[int, ...] | None = None
        self._frames = 0
        self._format = _format(self._path)
        self._format.check()
        rate = exact_frame_rate(frame_rate)
        self._temporary = temporary_beside(self._target, self._path.suffix)
        try:
            with _failures_named(self._path):
                self._encoder = self._format.open(self._temporary, rate, audio_rate, dict(metadata or {}))
        except BaseException:
            self._remove_temporary()
            raise

    def write_frames(self, frames: NDArray[np.uint8], /) -> None:
        """Appends (n, H, W, 3) uint8 RGB pictures; all of a clip have one size."""
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise InvalidRequestError(f"[output] expected frames (n, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
        shape = frames.shape[1:]
        if self._shape not in (None, shape):
            raise InvalidRequestError(f"[output] frames of {self._shape} are followed by frames of {shape}")
        self._shape = shape
        with _failures_named(self._path):
            for frame in frames:
                self._encoder.write_frame(np.ascontiguousarray(frame))
                self._frames += 1

    def write_audio(self, samples: NDArray[np.float32], /) -> None:
        """Appends (channels, n) samples, 1 or 2 channels; before, between or after the frames.

        See :func:`sdltx.sound.samples_of` for what they may be.
        """
        samples = sound.samples_of("output", samples)
        if len(samples) not in (1, 2):
            raise InvalidRequestError(f"[output] expected audio (1 or 2 channels, n), got {samples.shape}")
        with _failures_named(self._path):
            self._encoder.write_audio(np.ascontiguousarray(samples))

    def close(self) -> None:
        """Finishes the encoding and gives the files their names.

        Raises InvalidRequestError if no frame was written, and what :func:`output_files` raises; then all files stay as
        they were.
        """
        try:
            if not self._frames:
                raise InvalidRequestError(f"[output] no frames were written to {self._path}")
            targets = _files_of(self._format, self._target, self._frames, self._overwrite)
            with _failures_named(self._path):
                self._encoder.finish(self._report)
                become_all(list(zip(self._encoder.written(self._temporary), targets, strict=True)))
                self._format.remove_leftovers(self._target, self._frames)
        finally:
            self.abort()

    def abort(self) -> None:
        """Drops what was written. Does nothing after :meth:`close`."""
        self._encoder.release()
        self._remove_temporary()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress("write", done, self._frames)

    def _remove_temporary(self) -> None:
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary, ignore_errors=True)
        remove_temporary(self._temporary)


def _format(path: Path) -> Format:
    suffix = path.suffix.lower()
    if sound.is_sound(path):
        raise InvalidRequestError(f"[output] {path.name!r} holds sound alone and no pictures; choose another suffix")
    if suffix not in FORMATS:
        known = ", ".join((*FORMATS, sound.SUFFIX))
        raise InvalidRequestError(f"[output] {path.name!r} has no suffix that sdltx knows; use one of {known}")
    return FORMATS[suffix]


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Turns what FFmpeg, Pillow and the file system raise into a BackendError that names ``path``."""
    import av

    try:
        with failures_named(path):
            yield
    except av.FFmpegError as error:  # an OSError only where FFmpeg has an errno
        raise BackendError(f"[output] cannot encode {path}: {error.strerror or error}") from error
