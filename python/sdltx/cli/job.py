"""One command while it runs, and what it says on the terminal."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, NoReturn

import sdltx

if TYPE_CHECKING:
    from tqdm import tqdm


class Job:
    """One command and what it says on the terminal."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        show_bars = not args.quiet and (sys.stderr.isatty() or args.verbose > 0)
        self.bars = Bars(show_bars)
        level = logging.ERROR if args.quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
        logger = logging.getLogger("sdltx")
        logger.setLevel(level)
        logger.addHandler(_BarHandler(self.bars))

    def note(self, text: str) -> None:
        """Says something that is not an error; -q silences it."""
        if not self.args.quiet:
            self.bars.say(text)

    def check_outputs(self) -> None:
        """Fails before the long run instead of after it."""
        from .. import _files, media

        if self.args.output is not None:
            media.check_output(self.args.output)
        if getattr(self.args, "save_latents", None) is not None:
            _files.check_writable(self.args.save_latents)

    def load(self) -> sdltx.Pipeline:
        """Opens the model of the command line."""
        args = self.args
        given = {name: getattr(args, name) for name in ("device", "precision", "threads", "offload")}
        options = {name: value for name, value in given.items() if value is not None}
        pipe = sdltx.load(*args.model, **options, progress=self.bars.show)
        if note := pipe.info["note"]:
            self.note(f"note: {note}")
        return pipe

    def write(self, pipe: sdltx.Pipeline, latents: sdltx.Latents) -> None:
        """Decodes straight into the output file."""
        from ..media import VideoWriter, fit_audio

        args = self.args
        # The sound first: it is small, and the writer has to know whether there is any.
        sound = None if args.no_audio else pipe.decode_audio(latents, progress=self.bars.show)
        given = {name: value for name in sdltx.Tiling._fields if (value := getattr(args, f"tile_{name}")) is not None}
        tiling = sdltx.Tiling(**given) if given else None
        rate = sound[1] if sound else None
        with VideoWriter(
            args.output, latents.frame_rate, audio_rate=rate, metadata=latents.settings, progress=self.bars.show
        ) as writer:
            if sound:
                num_frames = 8 * (latents.video.shape[1] - 1) + 1
                writer.write_audio(fit_audio(*sound, num_frames, latents.frame_rate))
            pipe.decode_into(writer, latents, tiling=tiling, progress=self.bars.show)
        self.note(f"wrote {args.output}")


class Bars:
    """One progress bar at a time, one for each phase: load, encode, denoise, decode, write."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._phase = ""
        self._bar: tqdm[NoReturn] | None = None

    def show(self, phase: str, done: int, total: int) -> None:
        """Is a progress callback."""
        if not self._enabled:
            return
        if phase != self._phase:
            self.close()
            from tqdm import tqdm

            self._phase = phase
            self._bar = tqdm(
                total=total,
                desc=f"{phase:<7}",
                unit_scale=total >= 100_000,
                bar_format="{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
                file=sys.stderr,
            )
        if self._bar is None:  # the phase is complete
            return
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def say(self, text: str) -> None:
        """Prints a line above the running bar."""
        if self._bar is None:
            say(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _BarHandler(logging.Handler):
    """Prints log records above the running bar."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        self._bars.say(f"{record.levelname.lower()}: {record.getMessage()}")


def say(text: str) -> None:
    """Prints a line on standard error."""
    print(text, file=sys.stderr)
