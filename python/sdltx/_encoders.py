"""The formats that clips are written in: their encoders, and where each keeps the settings of a clip."""

from __future__ import annotations

import json
import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ._files import Source, exists, is_file
from .errors import BackendError, InvalidRequestError

if TYPE_CHECKING:
    from PIL import Image

_AUDIO_BIT_RATE = 192_000  # transparent for both codecs in stereo
_BT709, _LIMITED = 1, 1  # code points of ITU-T H.273
_EXIF_DESCRIPTION = 0x010E
_PNG_KEY = "sdltx"
_COUNTER = re.compile(r"%(?:0\d{1,2})?d(?![a-zA-Z])")

_MOST_FRAMES = 65536
_logger = logging.getLogger("sdltx")

Settings = Mapping[str, Any]


class Encoder(Protocol):
    """Writes one clip to a temporary file."""

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        """Appends an (H, W, 3) RGB picture of the size of the first."""

    def write_audio(self, samples: NDArray[np.float32]) -> None:
        """Appends (channels, n) samples in [-1, 1]; a format without sound drops them."""

    def finish(self, report: Callable[[int], object]) -> None:
        """Completes the temporary file; reports how many frames are done."""

    def written(self, temporary: Path) -> list[Path]:
        """The temporary files, in the order of :meth:`Format.names`."""

    def release(self) -> None:
        """Closes what is open, whether finished or not; may be called twice."""


class Format(Protocol):
    """One suffix."""

    @property
    def has_sound(self) -> bool:
        """Whether it keeps sound."""

    @property
    def encoders(self) -> str:
        """What it is written with, for people."""

    def longest_name(self, path: Path) -> Path:
        """The longest file name that a clip called ``path`` can need."""

    def names(self, path: Path, frames: int) -> list[Path]:
        """The files that a clip called ``path`` of ``frames`` frames becomes."""

    def is_ours(self, file: Path) -> bool:
        """Whether it may be replaced: the user has named it, or it is from sdltx."""

    def remove_leftovers(self, path: Path, frames: int) -> None:
        """Removes what an older, longer clip of the name ``path`` has left beside one of ``frames`` frames."""

    def check(self) -> None:
        """Raises BackendError if the installed libraries cannot write it."""

    def open(self, temporary: Path, rate: Fraction, audio_rate: int | None, settings: Settings) -> Encoder:
        """Starts a clip in the existing empty file ``temporary``."""

    def read_settings(self, path: Path) -> str | None:
        """The JSON text that ``open`` was given as ``settings``; None if there is none."""


class SingleFile:
    """What formats have in common that write one file."""

    def longest_name(self, path: Path) -> Path:
        return path

    def names(self, path: Path, frames: int) -> list[Path]:
        return [path]

    def is_ours(self, file: Path) -> bool:
        return True

    def remove_leftovers(self, path: Path, frames: int) -> None:
        pass


def _text_of(settings: Settings) -> str:
    """JSON with letters as they are; where some of them are none that can be written, they stay escaped."""
    text = json.dumps(settings, ensure_ascii=False)
    return text if text.isascii() or text.encode(errors="ignore").decode() == text else json.dumps(settings)


@dataclass(frozen=True)
class ContainerFormat(SingleFile):
    """Video files through PyAV."""

    has_sound: ClassVar[bool] = True
    container: str  # as FFmpeg reads it
    video: str
    video_options: Mapping[str, str]
    audio: str
    muxer_options: Mapping[str, str]

    @property
    def encoders(self) -> str:
        return f"{self.video} and {self.audio}"

    def check(self) -> None:
        import av

        for name in (self.video, self.audio):
            try:
                av.Codec(name, "w")
            except ValueError:
                raise BackendError(
                    f"[output] the installed PyAV lacks the encoder {name}; use another suffix"
                ) from None

    def open(self, temporary: Path, rate: Fraction, audio_rate: int | None, settings: Settings) -> Encoder:
        return ContainerEncoder(self, temporary, rate, audio_rate, settings)

    def read_settings(self, path: Path) -> str | None:
        import av

        # A file of ours, so that its name is no address, and of this format only.
        with Source(path) as file, av.open(file, format=self.container) as container:
            return next((value for key, value in container.metadata.items() if key.lower() == "comment"), None)


_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # Hz


class ContainerEncoder:
    """4:2:0, BT.709, limited range, which every player shows alike; sound is stereo."""

    def __init__(
        self, codecs: ContainerFormat, file: Path, rate: Fraction, audio_rate: int | None, settings: Settings
    ) -> None:
        import av

        self._container = av.open(str(file), "w", options=dict(codecs.muxer_options))
        self._container.metadata["comment"] = _text_of(settings)
        self._video: Any = self._container.add_stream(codecs.video, rate=rate, options=dict(codecs.video_options))
        self._audio: Any = None
        if audio_rate is not None:
            # Codecs know few rates; PyAV resamples to that of the stream.
            rate_in_file = audio_rate if codecs.audio == "aac" and audio_rate in _AAC_RATES else 48000
            self._audio = self._container.add_stream(codecs.audio, rate=rate_in_file, layout="stereo")
            self._audio.bit_rate = _AUDIO_BIT_RATE
        self._audio_rate = audio_rate
        self._frame_time = 1 / rate
        self._early_audio: list[NDArray[np.float32]] = []
        self._frames = 0
        self._samples = 0

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        import av

        if not self._frames:
            self._set_size(frame)
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
        )
        picture.pts = self._frames
        picture.time_base = self._frame_time
        self._frames += 1
        self._container.mux(self._video.encode(picture))
        while self._early_audio:
            self.write_audio(self._early_audio.pop(0))

    def write_audio(self, samples: NDArray[np.float32]) -> None:
        import av

        if self._audio_rate is None:
            raise InvalidRequestError("[output] audio for a clip that was opened as silent; give audio_rate")
        if not self._frames:  # the header of the file needs the size of the pictures
            self._early_audio.append(samples)
            return
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono" if len(samples) == 1 else "stereo")
        frame.sample_rate = self._audio_rate
        frame.time_base = Fraction(1, self._audio_rate)
        frame.pts = self._samples
        self._samples += samples.shape[1]
        self._container.mux(self._audio.encode(frame))

    def finish(self, report: Callable[[int], object]) -> None:
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._container.mux(self._audio.encode(None))
        self._container.close()
        report(self._frames)

    def written(self, temporary: Path) -> list[Path]:
        return [temporary]

    def release(self) -> None:
        import av

        with suppress(OSError, av.FFmpegError):  # an unfinished file is dropped; that it cannot be ended is no news
            self._container.close()

    def _set_size(self, frame: NDArray[np.uint8]) -> None:
        height, width, _ = frame.shape
        if width % 2 or height % 2:
            raise InvalidRequestError(f"[output] video files need even sizes, got {width}x{height}; use .png or .webp")
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED


@dataclass(frozen=True)
class AnimationFormat(SingleFile):
    """Animated pictures through Pillow."""

    has_sound: ClassVar[bool] = False
    encoders: ClassVar[str] = "Pillow"
    name: str
    tick: Fraction  # s; the times of frames are multiples of it
    shortest: Fraction  # s, of a frame; what is shorter is shown as something long by players
    options: Mapping[str, Any]

    def check(self) -> None:
        from PIL import features

        if self.name == "WEBP" and not features.check("webp"):
            raise BackendError("[output] the installed Pillow lacks WebP; use another suffix")

    def open(self, temporary: Path, rate: Fraction, audio_rate: int | None, settings: Settings) -> Encoder:
        return AnimationEncoder(self, temporary, rate, settings)

    def read_settings(self, path: Path) -> str | None:
        from PIL import Image

        with Image.open(path, formats=[self.name]) as picture:
            if self.name == "GIF":
                return bytes(picture.info.get("comment", b"")).decode()
            text: str | None = picture.getexif().get(_EXIF_DESCRIPTION)
            return text


class AnimationEncoder:
    """Keeps the frames until the end, because Pillow wants them all at once; there is no sound."""

    def __init__(self, format: AnimationFormat, file: Path, rate: Fraction, settings: Settings) -> None:
        self._format = format
        self._file = file
        self._rate = rate
        self._settings = json.dumps(settings)  # ASCII, as both formats want
        self._pictures: list[Image.Image] = []
        self._starts: list[Fraction] = []  # s
        self._frames = 0

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        from PIL import Image

        start = self._frames / self._rate
        self._frames += 1
        if self._starts and start < self._starts[-1] + self._format.shortest:
            return
        self._starts.append(start)
        picture = Image.fromarray(frame)
        self._pictures.append(picture.quantize(256) if self._format.name == "GIF" else picture)

    def write_audio(self, samples: NDArray[np.float32]) -> None:
        pass

    def finish(self, report: Callable[[int], object]) -> None:
        from PIL import Image

        if len(self._pictures) < self._frames:
            _logger.warning(
                "%s players show at most %d frames per second; %d of the %d frames are left out",
                self._format.name,
                1 / self._format.shortest,
                self._frames - len(self._pictures),
                self._frames,
            )
        if self._format.name == "GIF":
            kept: dict[str, Any] = {"comment": self._settings.encode()}
        else:
            exif = Image.Exif()
            exif[_EXIF_DESCRIPTION] = self._settings
            kept = {"exif": exif}
        try:
            self._pictures[0].save(
                self._file,
                self._format.name,
                save_all=True,
                append_images=self._further_pictures(report),
                duration=self._durations(),
                loop=0,
                **kept,
                **self._format.options,
            )
        except (OverflowError, struct.error):  # equal pictures in a row become one, and times have few bits
            raise InvalidRequestError(
                f"[output] a picture here lasts longer than {self._format.name} files can say; use .mp4 or .webm"
            ) from None

    def written(self, temporary: Path) -> list[Path]:
        return [temporary]

    def release(self) -> None:
        self._pictures.clear()

    def _further_pictures(self, report: Callable[[int], object]) -> Iterator[Image.Image]:
        for done, picture in enumerate(self._pictures[1:], 1):
            report(done)
            yield picture
        report(self._frames)

    def _durations(self) -> list[int]:
        """Milliseconds of each frame: the times are rounded, not the durations, so that errors do not add up."""
        tick = self._format.tick
        times = [round(start / tick) for start in (*self._starts, self._frames / self._rate)]
        return [int((end - start) * tick * 1000) for start, end in pairwise(times)]


class SequenceFormat:
    """One PNG file per frame through Pillow."""

    has_sound: ClassVar[bool] = False
    encoders: ClassVar[str] = "Pillow"

    def longest_name(self, path: Path) -> Path:
        return sequence_name(path, _MOST_FRAMES)

    def names(self, path: Path, frames: int) -> list[Path]:
        if frames == 1 and not _COUNTER.search(path.name):
            return [path]
        return [sequence_name(path, number) for number in range(1, frames + 1)]

    def is_ours(self, file: Path) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, of large pictures
                return is_file(file) and self.read_settings(file) is not None
        except MemoryError:
            raise
        except Exception:  # what a broken file makes a format raise
            return False

    def remove_leftovers(self, path: Path, frames: int) -> None:
        if frames == 1 and not _COUNTER.search(path.name):
            return
        for number in count(frames + 1):
            file = sequence_name(path, number)
            if not file.exists():
                return
            if not self.is_ours(file):
                _logger.warning("%s and what follows is not from sdltx; it stays beside the new frames", file)
                return
            file.unlink()

    def check(self) -> None:
        pass

    def open(self, temporary: Path, rate: Fraction, audio_rate: int | None, settings: Settings) -> Encoder:
        temporary.unlink()
        temporary.mkdir()
        return SequenceEncoder(temporary, settings)

    def read_settings(self, path: Path) -> str | None:
        from PIL import Image

        file = path if exists(path) else sequence_name(path, 1)
        if exists(file) and not is_file(file):
            raise OSError(f"{file.name} is no regular file")
        with Image.open(file, formats=["PNG"]) as picture:
            text: str | None = picture.info.get(_PNG_KEY)
            return text


class SequenceEncoder:
    """Collects the files in a temporary folder, so that they get their names together; there is no sound."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        from PIL.PngImagePlugin import PngInfo

        self._folder = folder
        self._frames = 0
        self._info = PngInfo()
        self._info.add_itxt(_PNG_KEY, _text_of(settings))

    def write_frame(self, frame: NDArray[np.uint8]) -> None:
        from PIL import Image

        self._frames += 1
        Image.fromarray(frame).save(self._folder / str(self._frames), "PNG", pnginfo=self._info)

    def write_audio(self, samples: NDArray[np.float32]) -> None:
        pass

    def finish(self, report: Callable[[int], object]) -> None:
        report(self._frames)

    def written(self, temporary: Path) -> list[Path]:
        return [temporary / str(n) for n in range(1, self._frames + 1)]

    def release(self) -> None:
        pass


def sequence_name(path: Path, number: int) -> Path:
    """The file of frame ``number`` (from 1): out_%03d.png gives out_001.png, out.png gives out_0001.png."""
    if counter := _COUNTER.search(path.name):
        return path.with_name(path.name.replace(counter[0], counter[0] % number, 1))
    return path.with_name(f"{path.stem}_{number:04d}{path.suffix}")


# Bit-exact muxing: the same clip gives the same bytes, without the random ids that WebM would get.
FORMATS: Mapping[str, Format] = {
    ".mp4": ContainerFormat(
        container="mp4",
        video="libx264",
        # With AVX-512, x264's macroblock tree gives other bits now and then on a busy machine, even on one thread.
        video_options={"crf": "17", "preset": "medium", "mbtree": "0"},
        audio="aac",
        muxer_options={"fflags": "+bitexact", "movflags": "+faststart"},
    ),
    ".webm": ContainerFormat(
        container="matroska",
        video="libvpx-vp9",
        video_options={"crf": "24", "b": "0", "cpu-used": "3", "row-mt": "1"},
        audio="libopus",
        muxer_options={"fflags": "+bitexact"},
    ),
    ".gif": AnimationFormat("GIF", Fraction(1, 100), Fraction(1, 50), {"disposal": 1, "optimize": False}),
    ".webp": AnimationFormat("WEBP", Fraction(1, 1000), Fraction(0), {"quality": 90, "method": 4}),
    ".png": SequenceFormat(),
}
