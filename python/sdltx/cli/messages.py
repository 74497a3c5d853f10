"""What a command says on the terminal: lines, progress bars, log records. A reader that goes away stops nothing."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from pathlib import Path

from .. import progress


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


class Bars(progress.Bars):
    """Bars on standard error, between lines.

    shown: draw them. timed: say how long each phase took when the next begins.
    """

    def __init__(self, shown: bool, timed: bool = False) -> None:
        super().__init__(stderr)
        self._shown = shown and (not stderr.isatty() or progress.on_terminal())
        self._timed = timed
        self._start = 0.0

    def say(self, text: str) -> None:
        """Prints a line above the running bar."""
        if self._bar is not None:
            self._bar.clear()
        say(text)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        phase = self._phase
        super().close()
        if phase and self._timed:
            say(f"{phase} took {time.monotonic() - self._start:.1f} s")

    def _begin(self, phase: str, total: int) -> None:
        self._phase = phase
        self._start = time.monotonic()
        if self._shown:
            self._bar = self._new_bar(phase, total)


class LogLines(logging.Handler):
    """Prints log records above the running bar."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one."""
        self._bars.say(f"{record.levelname.lower()}: {record.getMessage()}")
