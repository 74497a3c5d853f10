"""One command while it runs: its model, its outputs, and what becomes of a clip that cannot be written."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import sdltx

from .._demo import demo_files
from .._files import exists
from .messages import Bars, LogLines, stderr

if TYPE_CHECKING:
    from .clips import FileClip

_LEAST_TILE, _LEAST_OVERLAP = 256, 64  # pixels that hardly show
_SMALLEST_TILE = 64  # that is possible
_LEAST_FRAMES, _LEAST_FRAME_OVERLAP = 32, 16
MODEL_OPTIONS = ("device", "offload", "max_memory", "max_vram", "precision", "threads")
"""Arguments of load() that commands take."""
_WORTH_KEEPING = 60  # seconds of denoising


class Job:
    """A command; a ``with`` block around it lets its log records appear."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rescued: list[str] = []
        """What to say after an error."""
        self.bars = Bars(not args.quiet and (stderr.isatty() or args.verbose > 0), timed=args.verbose > 0)
        self._log_lines = LogLines(self.bars)

    def __enter__(self) -> Job:
        args = self.args
        level = logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
        logger = logging.getLogger("sdltx")
        self._level_before = logger.level
        logger.setLevel(level)
        logger.addHandler(self._log_lines)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.bars.close()
        logger = logging.getLogger("sdltx")
        logger.removeHandler(self._log_lines)
        logger.setLevel(self._level_before)

    def note(self, text: str) -> None:
        """Says something that is not an error; -q silences it."""
        if not self.args.quiet:
            self.bars.say(text)

    def warn(self, text: str) -> None:
        """Says that the result may not be what was meant; -q silences it."""
        self.note(f"warning: {text}")

    def detail(self, text: str) -> None:
        """Says what only -v asks for."""
        if self.args.verbose:
            self.bars.say(text)

    def load(self) -> sdltx.Pipeline:
        """Opens the model of the command line."""
        args = self.args
        given = {name: getattr(args, name) for name in MODEL_OPTIONS}
        options = {name: value for name, value in given.items() if value is not None}
        pipe = sdltx.load(*(args.model or demo_files()), **options, progress=self.bars.show)
        self.bars.close()
        if note := pipe.info["note"]:
            self.note(f"note: {note}")
        if pipe.device != "cpu" and args.device is None:
            self.note(f"device: {pipe.device}")
        return pipe

    def warn_of_silence(self, pipe: sdltx.Pipeline) -> None:
        """Says so if the output is to have sound and the model makes none."""
        if self.with_pictures() and self.with_sound() and not pipe.info["has_audio"]:
            self.warn("no audio decoder and vocoder are among the files; the clip will be silent")

    def warn_of_tiles(self) -> None:
        """Says so if the tiles are so small that their borders show: a pixel depends on hundreds around it."""
        tiling = self.tiling()
        if tiling is None:
            return
        small = tiling.size and (tiling.size < _LEAST_TILE or tiling.overlap < _LEAST_OVERLAP)
        short = tiling.frames and (tiling.frames < _LEAST_FRAMES or tiling.frame_overlap < _LEAST_FRAME_OVERLAP)
        if small or short:
            self.warn(
                f"such small tiles change the picture where they meet; from {_LEAST_TILE} pixels with {_LEAST_OVERLAP} "
                f"of overlap and {_LEAST_FRAMES} frames with {_LEAST_FRAME_OVERLAP} on it hardly shows"
            )

    def with_sound(self) -> bool:
        """Whether the output is to have sound."""
        from .. import media

        args = self.args
        return not args.no_audio and (
            args.audio_out is not None or (bool(args.output) and media.takes_sound(args.output))
        )

    def with_pictures(self) -> bool:
        """Whether the output is to have pictures."""
        from .. import media

        return self.args.output is not None and media.takes_pictures(self.args.output)

    def decoders(self) -> list[str]:
        """The parts of a model without which nothing can be written."""
        only_sound = (self.args.output or self.args.audio_out) and not self.with_pictures()
        pictures = self.with_pictures() or getattr(self.args, "preview", None) is not None
        return ["video decoder"] * pictures + ["audio decoder", "vocoder"] * bool(only_sound)

    def tiling(self) -> sdltx.Tiling | None:
        """The tiles of the command line; None if it says nothing of them."""
        given = {
            name: value for name in sdltx.Tiling._fields if (value := getattr(self.args, f"tile_{name}")) is not None
        }
        if not given:
            return None
        tiling = sdltx.Tiling(**given)
        # An overlap that was not given follows a small tile.
        if "overlap" not in given and tiling.size:
            tiling = tiling._replace(overlap=min(tiling.overlap, tiling.size // 64 * 32))
        if "frame_overlap" not in given and tiling.frames:
            tiling = tiling._replace(frame_overlap=min(tiling.frame_overlap, tiling.frames // 16 * 8))
        return tiling

    def run(self, pipe: sdltx.Pipeline, clips: Sequence[FileClip], *, several: bool = False) -> None:
        """Makes clips, and keeps of those that fail or are stopped what took long. several: tells which failed."""
        start = time.monotonic()
        self.bars.whole = lambda: pipe.whole_progress
        try:
            pipe.run(clips, progress=self.bars.show)
        except BaseException as error:
            for clip in clips:
                self._keep(clip, error, start)
            raise
        for clip in clips:
            if clip.error is not None:
                if several:
                    self.bars.say(f"error: {clip.name}: {clip.error}")
                self._keep(clip, clip.error, start)

    def _keep(self, clip: FileClip, error: BaseException, start: float) -> None:
        clip.abort()
        task = None if clip.latents is None else clip.latents.settings.get("task")
        if task == "extend":  # of a window, which is not the film
            return
        if clip.latents is not None and not clip.written and not clip.given:
            if kept := clip.saved or self._rescue(clip, clip.latents, "latents"):
                self.rescued.append(f"the denoised clip is kept in {kept}; go on with")
                self.rescued.append(f"  {self._decode_command(clip, kept, isinstance(error, MemoryError))}")
                if task in ("retake", "sound to clip", "foley"):
                    self.rescued.append("which decodes also what was given, in place of taking it as it was")
        elif clip.estimate is not None and time.monotonic() - start >= _WORTH_KEEPING:
            done, steps, estimate = clip.estimate
            if kept := self._rescue(clip, estimate, f"step-{done}.latents"):
                self.rescued.append(f"what the clip looks like after {done} of {steps} steps is kept in {kept}: ")
                self.rescued.append(f"  {self._decode_command(clip, kept, False)}")

    def _decode_command(self, clip: FileClip, latents: str, smaller: bool) -> str:
        """What goes on with latents. ``smaller``: memory was short, so in smaller tiles."""
        args = self.args
        words = ["sdltx-cli", "decode", f"./{latents}" if latents.startswith("-") else latents]
        for path in getattr(args, "named_models", args.model):
            words += ["-m", path]
        for name in MODEL_OPTIONS:
            if getattr(args, name) is not None:
                words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        tiles = {name: getattr(args, f"tile_{name}") for name in sdltx.Tiling._fields}
        if smaller:
            tiles["size"] = max(_SMALLEST_TILE, min(tiles["size"] or sdltx.Tiling().size, 2 * _LEAST_TILE) // 64 * 32)
        for name, value in tiles.items():
            if value is not None:
                words += [f"--tile-{name.replace('_', '-')}", str(value)]
        if args.metadata != "full":
            words += ["--metadata", args.metadata]
        if args.wav_format != "s16":
            words += ["--wav-format", args.wav_format]
        words += ["--overwrite"] * args.overwrite
        if clip.files.audio_out and clip.files.output:
            words += ["--audio-out", clip.files.audio_out]
        words += ["-o", clip.files.output or clip.files.audio_out or "clip.mp4"]
        return " ".join(map(_quoted, words))

    def _rescue(self, clip: FileClip, latents: sdltx.Latents, what: str) -> str | None:
        output = Path(clip.files.output or clip.files.latents or clip.files.audio_out or "clip")
        for folder in (output.parent, Path(), Path(tempfile.gettempdir())):
            path = folder / f"{output.stem[:50]}.{what}.safetensors"
            for number in range(2, 1000):
                if not exists(path):
                    break
                path = path.with_name(f"{output.stem[:50]}.{what}-{number}.safetensors")
            try:
                latents.save(path)
            except sdltx.SdltxError:
                continue
            return str(path)
        self.rescued.append("what was denoised is lost: no folder takes it")
        return None


def _quoted(word: str) -> str:
    """For a shell; names that are no text in the way of bash, as they cannot be shown."""
    if word.isprintable():
        return shlex.quote(word)
    plain = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ./_-")
    return "$'" + "".join(chr(b) if b in plain else f"\\x{b:02x}" for b in os.fsencode(word)) + "'"
