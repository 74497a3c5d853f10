"""Sound and films from files, as models take them: what people would otherwise get wrong one by one."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import _arguments, _core
from ._files import Source, exists, is_file, is_folder
from .errors import InvalidRequestError, OutOfMemoryError, SdltxError, shortened

if TYPE_CHECKING:
    import av

_BT709, _BT601 = 1, 5  # of swscale
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # by the code points of H.273
_LIMITED, _FULL = 1, 2
_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of H.273
_LARGE = 720  # lines, from which pictures that do not tell their matrix are BT.709
_LONGEST = 24 * 3600  # seconds
_EARLY = 1e-3  # seconds that time stamps may be off
_SHORTEST_GAP = 0.02  # seconds, in sound; less are time stamps that are rounded
_MUCH = 256 << 20  # bytes of pictures, after which it is looked whether there is room for more


@contextmanager
def _opened(where: str, path: str | os.PathLike[str], kind: str) -> Iterator[tuple[Any, Any]]:
    """The container of a file and its first stream of a kind. Names the file in what FFmpeg raises."""
    import av

    name = _arguments.path(where, path)
    if not exists(name):
        raise InvalidRequestError(f"[{where}] there is no file {name}")
    if is_folder(name):
        raise InvalidRequestError(f"[{where}] {name} is a folder; give a file")
    if not is_file(name):  # a pipe would have us wait, and FFmpeg goes back and forth
        raise InvalidRequestError(f"[{where}] {name} is no regular file; give one")
    try:
        # Opened here, so that no name is an address, and without playlists, which name other files.
        with Source(name) as file, av.open(file, format=None, options={"protocol_whitelist": ""}) as container:
            streams = getattr(container.streams, kind)
            if not streams:
                raise InvalidRequestError(f"[{where}] {name} has no {'sound' if kind == 'audio' else 'pictures'}")
            if streams[0].codec_context is None:
                raise InvalidRequestError(f"[{where}] {name} is coded in a way that is not known; convert it")
            yield container, streams[0]
    except SdltxError:
        raise
    except Exception as error:  # what a broken file makes one of many formats raise
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise
        reason = getattr(error, "strerror", None) or shortened(error)
        raise InvalidRequestError(f"[{where}] cannot read {name}: {reason}") from None


def _origin(container: Any) -> float:
    """When a file begins, in seconds; what encoders put before the first sound does not count."""
    return max(float(container.start_time or 0) / 1e6, 0.0)


def _span(where: str, start: Any, duration: Any) -> tuple[float, float]:
    begin = _arguments.real(where, "start", start)
    length = math.inf if duration is None else _arguments.real(where, "duration", duration)
    if not 0 <= begin <= _LONGEST or not length > 0:
        raise InvalidRequestError(f"[{where}] start must be 0 or more seconds and duration above 0")
    return begin, min(length, _LONGEST)


def read_audio(
    path: str | os.PathLike[str], *, start: float = 0.0, duration: float | None = None
) -> tuple[NDArray[np.float32], int]:
    """Returns the sound of a file, or of a film: (2, samples), float32, as loud as it is, and its rate in Hz.

    path: anything that PyAV reads, such as .wav, .mp3, .flac, .m4a, .ogg, .mp4.
    start, duration: in seconds; None: to its end. Samples are counted as ltx-pipelines counts them: round(start rate)
        are left out and round(duration rate) taken, fewer if there are no more.

    One channel becomes both; of more than two the first two are taken. Raises InvalidRequestError for a file that is
    missing, damaged or without sound.
    """
    begin, length = _span("audio", start, duration)
    with _opened("audio", path, "audio") as (container, stream):
        rate = stream.rate
        left = None if math.isinf(length) else round(length * rate)
        if begin > 1:
            container.seek(int((begin - 1 + _origin(container)) / stream.time_base), stream=stream)
        parts: list[NDArray[np.float32]] = []
        skip: int | None = None
        until: float | None = None  # what was decoded lasts
        for frame in container.decode(stream):
            samples = _samples(frame)
            # Where the file leaves out some time there is silence.
            if until is not None and frame.time is not None and frame.time - until > _SHORTEST_GAP:
                gap = min(round((frame.time - until) * rate), round(_LONGEST * rate))
                samples = np.concatenate([np.zeros((2, gap), np.float32), samples], axis=1)
            if frame.time is not None:
                until = frame.time + frame.samples / rate
            if skip is None:
                # The first one may come early, as encoders need a start, or late.
                skip = round((begin + _origin(container) - float(frame.time or 0.0)) * rate)
                if skip < 0:
                    parts.append(np.zeros((2, -skip if left is None else min(-skip, left)), np.float32))
                    left, skip = left if left is None else left - parts[0].shape[1], 0
            dropped = min(skip, samples.shape[1])
            skip -= dropped
            parts.append(samples[:, dropped:])
            if left is not None:
                parts[-1] = parts[-1][:, :left]
                left -= parts[-1].shape[1]
                if left == 0:
                    break
    samples = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32)
    if not samples.shape[1]:
        raise InvalidRequestError(f"[audio] {os.fspath(path)} has no sound at {begin:g} s")
    return np.ascontiguousarray(samples), rate


def _samples(frame: av.AudioFrame) -> NDArray[np.float32]:
    """Its first two channels as float32 in [-1, 1]."""
    values: NDArray[Any] = frame.to_ndarray()
    channels = len(frame.layout.channels)
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    values = values[[0, min(1, channels - 1)]]
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values / 2.0 ** (8 * values.dtype.itemsize - 1)
    return np.asarray(values, np.float32)


def read_frames(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    duration: float | None = None,
    frame_rate: float | None = None,
) -> tuple[NDArray[np.uint8], float]:
    """Returns the pictures of a film: (F, H, W, 3) RGB bytes, and how many there are per second.

    start, duration: in seconds; None: to its end. frame_rate: None: the file's own, where rates vary their mean.

    Pictures are turned as the file says, brought from its colour matrix and range to full-range RGB (BT.601 where small
    films do not tell, BT.709 where large ones do not), and put at even distances: a picture is shown until the next
    one's time. Transparency is left out. Raises InvalidRequestError for a file that is missing, damaged or without
    pictures, and for HDR, whose colours cannot be told in 8 bits.
    """
    begin, length = _span("video", start, duration)
    with _opened("video", path, "video") as (container, stream):
        own = float(stream.average_rate or stream.guessed_rate or 0)
        rate = own if frame_rate is None else _arguments.real("video", "frame_rate", frame_rate)
        if not 0 < rate <= 1000:
            raise InvalidRequestError(f"[video] {os.fspath(path)}: no rate of frames is told; give one")
        wanted = sys.maxsize if math.isinf(length) else max(1, round(length * rate))
        origin = _origin(container)
        if begin > 1:
            container.seek(int((begin - 1 + origin) / stream.time_base), stream=stream)
        grid = _Grid(path, begin, rate, wanted)
        end = 0.0
        for number, frame in enumerate(container.decode(stream)):
            time = number / own if frame.time is None else float(frame.time) - origin
            end = time + (float(frame.duration * frame.time_base) if frame.duration else 1 / rate)
            if not grid.show(frame, time):
                break
        grid.finish(end)
    if not grid.pictures:
        raise InvalidRequestError(f"[video] {os.fspath(path)} has no pictures at {begin:g} s")
    return np.stack(grid.pictures), rate


class _Grid:
    """Pictures at even distances: each is seen from its time to the next one's."""

    def __init__(self, path: str | os.PathLike[str], begin: float, rate: float, wanted: int) -> None:
        self.pictures: list[NDArray[np.uint8]] = []
        self._path, self._begin, self._rate, self._wanted = os.fspath(path), begin, rate, wanted
        self._frame: av.VideoFrame | None = None
        self._rgb: NDArray[np.uint8] | None = None

    def show(self, frame: av.VideoFrame, time: float) -> bool:
        """Shows the one before until ``time``; returns whether more is wanted."""
        if self._frame is None:
            self._frame = frame
            return True
        self.finish(time)
        self._frame, self._rgb = frame, None
        return len(self.pictures) < self._wanted

    def finish(self, end: float) -> None:
        """Shows the current one until ``end``."""
        while self._frame is not None and len(self.pictures) < self._wanted:
            if self._begin + len(self.pictures) / self._rate >= end - _EARLY:
                break
            if self._rgb is None:
                self._rgb = _rgb(self._path, self._frame)
            if self.pictures and self.pictures[0].shape != self._rgb.shape:
                raise InvalidRequestError(f"[video] {self._path} changes its size; give a film of one size")
            self.pictures.append(self._rgb)
            self._check_room(self._rgb.nbytes)

    def _check_room(self, bytes: int) -> None:
        """Raises OutOfMemoryError where there is no room for the pictures as one array beside them."""
        total = len(self.pictures) * bytes
        if total // _MUCH == (total - bytes) // _MUCH:
            return
        free = next(int(device["memory_free"]) for device in _core.devices() if device["kind"] == "cpu")
        if total > free:
            raise OutOfMemoryError(
                f"[video] {self._path}: the pictures of its first {len(self.pictures) / self._rate:.0f} s take "
                f"{total / 2**30:.1f} GiB, and as much is needed once more; give a shorter or smaller film"
            )


def _rgb(path: str, frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A picture as RGB bytes (H, W, 3), upright."""
    if (name := _HDR.get(int(frame.color_trc))) is not None:
        raise InvalidRequestError(f"[video] {path} is HDR ({name}); give it in SDR, such as BT.709 with 8 bits")
    matrix = _MATRICES.get(int(frame.colorspace), _BT709 if frame.height >= _LARGE else _BT601)
    full = int(frame.color_range) == _FULL
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=_FULL if full else _LIMITED,
        dst_color_range=_FULL,
        interpolation="BILINEAR",
    ).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, int(frame.rotation) // 90 % 4))


def has_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a stream of sound."""
    try:
        with _opened("audio", path, "audio"):
            return True
    except InvalidRequestError:
        return False
