"""What a command says on the terminal: lines, progress bars, log records. A reader that goes away stops nothing."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tqdm import tqdm


class _Stderr:
    """Standard error, as long as there is somebody to write to."""

    def write(self, text: str) -> int:
        try:
            if sys.stderr is not None:
                sys.stderr.write(text)
        except (OSError, ValueError):
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except (OSError, ValueError):
            self._give_up()

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "ascii"

    def isatty(self) -> bool:
        return sys.stderr is not None and sys.stderr.isatty()

    @staticmethod
    def _give_up() -> None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (for the rest of the process)


stderr = _Stderr()


def open_standard_streams() -> None:
    """Opens what the caller has closed of standard input, output and error, or the next file would be taken for it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what it cannot spell is no reason to fail


def flush_standard_output() -> None:
    """Writes what was printed. Raises OSError if that cannot be, BrokenPipeError if nobody reads it."""
    if sys.stdout is not None:
        sys.stdout.flush()


def close_standard_output() -> None:
    """Drops what was printed, and what will be."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def say(text: str) -> None:
    """Prints a line on standard error, without the control characters that a file may have put into it."""
    print("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text), file=stderr)


class Bars:
    """One progress bar at a time, one for each phase: load, encode, denoise, upscale, sound, decode, write.

    shown: draw them. timed: say how long each phase took when the next begins.
    """

    def __init__(self, shown: bool, timed: bool = False) -> None:
        # A terminal of unknown size (no rows, no columns) has no room for them.
        self._shown = shown and not (stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns == 0)
        self._timed = timed
        self._phase = ""
        self._start = 0.0
        self._bar: tqdm[NoReturn] | None = None
        self.whole: Callable[[], tuple[float, float | None]] | None = None
        """How far the whole run is, and the seconds that are left."""

    def show(self, phase: str, done: int, total: int) -> None:
        """Is a progress callback."""
        if phase != self._phase:
            self.close()
            self._phase = phase
            self._start = time.monotonic()
            if self._shown:
                self._bar = self._new_bar(phase, total)
        if self._bar is not None:
            self._bar.total = total
            if self.whole is not None and phase != "load":
                self._bar.set_postfix_str(_spell_whole(*self.whole()), refresh=False)
            self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def say(self, text: str) -> None:
        """Prints a line above the running bar."""
        if self._bar is not None:
            self._bar.clear()
        say(text)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._phase and self._timed:
            say(f"{self._phase} took {time.monotonic() - self._start:.1f} s")
        self._phase = ""

    @staticmethod
    def _new_bar(phase: str, total: int) -> tqdm[NoReturn]:
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=f"{phase:<7}",
            unit_scale=total >= 100_000,
            bar_format="{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
            file=stderr,
        )


def _spell_whole(fraction: float, left: float | None) -> str:
    """How far the whole is: "whole 42 %, 3:20 left"."""
    minutes, seconds = divmod(round(left or 0), 60)
    return f"whole {100 * fraction:.0f} %" + (f", {minutes}:{seconds:02d} left" if left else "")


class LogLines(logging.Handler):
    """Prints log records above the running bar."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        self._bars.say(f"{record.levelname.lower()}: {record.getMessage()}")
