"""What shows how far a run is: bars on terminals and in notebooks, or whatever a caller's function does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from . import _arguments

if TYPE_CHECKING:
    from tqdm import tqdm

Callback = Callable[[str, int, int], object]
"""Hears (phase, done, total); an exception that it raises stops the run."""
Progress = Callable[[str, int, int], object] | bool | None
"""What methods take: a callback, True for bars, False for nothing; None: bars on a terminal and in a notebook."""


class Bars:
    """One bar at a time, one for each phase: load, enhance, encode, denoise, upscale, sound, decode, write.

    ``show`` is a progress callback; use ``close`` when the run is over.
    """

    def __init__(self, file: Any = None) -> None:
        """file: where to; None: standard error, and in a notebook the output of its cell."""
        self._file = file
        self._phase = ""
        self._bar: tqdm[NoReturn] | None = None
        self.whole: Callable[[], tuple[float, float | None]] | None = None
        """How far the whole run is, and the seconds that are left."""

    def show(self, phase: str, done: int, total: int) -> None:
        """Is a progress callback."""
        if phase != self._phase:
            self.close()
            self._begin(phase, total)
        if self._bar is not None:
            self._bar.total = total
            if self.whole is not None and phase != "load":
                self._bar.set_postfix_str(_spell_whole(*self.whole()), refresh=False)
            self._bar.update(done - self._bar.n)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leaves the bar as it is and goes to the next line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._phase = ""

    def _begin(self, phase: str, total: int) -> None:
        self._phase = phase
        self._bar = self._new_bar(phase, total)

    def _new_bar(self, phase: str, total: int) -> tqdm[NoReturn]:
        return _tqdm_of_here()(
            total=total,
            desc=f"{phase:<7}",
            unit_scale=total >= 100_000,
            bar_format="{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
            file=self._file,
        )


def _tqdm_of_here() -> Any:
    """The kind of bars that fits: tqdm.auto would warn where a notebook has no widgets."""
    if in_notebook():
        try:
            import ipywidgets  # noqa: F401
        except ImportError:
            pass
        else:
            from tqdm.notebook import tqdm as of_notebook

            return of_notebook
    from tqdm import tqdm

    return tqdm


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def on_terminal() -> bool:
    """Whether standard error is a terminal; one of unknown size (no rows, no columns) has no room for bars."""
    try:
        return sys.stderr is not None and sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def _spell_whole(fraction: float, left: float | None) -> str:
    """How far the whole is: "whole 42 %, 3:20 left"."""
    minutes, seconds = divmod(round(left or 0), 60)
    return f"whole {100 * fraction:.0f} %" + (f", {minutes}:{seconds:02d} left" if left else "")


@contextmanager
def heard(where: str, progress: Any, whole: Callable[[], tuple[float, float | None]] | None = None) -> Iterator[Any]:
    """Gives the callback for what a caller has passed as ``progress``; bars are closed at the end of the block."""
    if progress is None:
        progress = in_notebook() or on_terminal()
    if progress is False:
        yield None
    elif progress is not True:
        yield _arguments.callback(where, "progress", progress)
    else:
        bars = Bars()
        bars.whole = whole
        try:
            yield bars.show
        finally:
            bars.close()
