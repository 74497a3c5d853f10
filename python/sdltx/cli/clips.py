"""Clips that a command makes: what is said of them, and what is kept when something fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sdltx
from sdltx.writing import Files, Manner, WrittenClip

if TYPE_CHECKING:
    from .job import Job


def numbered(path: str, number: int, count: int) -> str:
    """Returns the name of one of several files: NAME_01.mp4."""
    stem, suffix = os.path.splitext(path)  # noqa: PTH122 (a Path would tidy up what was typed)
    return f"{stem}_{number:0{len(str(count))}d}{suffix}"


def raise_failed(failed: Sequence[BaseException], count: int) -> None:
    """Raises what several clips failed with, which was told already: as one error, of the kind of the first."""
    if failed:
        kind = type(failed[0]) if isinstance(failed[0], sdltx.SdltxError) else sdltx.BackendError
        raise kind(f"[clips] {len(failed)} of {count} failed")


class FileClip(WrittenClip):
    """Writes a clip to the files of a command."""

    def __init__(self, command: Job, request: sdltx.Request, files: Files, **given: Any) -> None:
        args = command.args
        manner = Manner(args.metadata, args.wav_format, args.overwrite, not args.no_audio, command.bars.show)
        super().__init__(request, files, manner, **given)
        self.estimate: tuple[int, int, sdltx.Latents] | None = None
        """After how many steps of how many, and what it was taken to be then."""
        self.given = self.latents is not None
        """Whether the denoised clip is somebody's already."""
        self._command = command
        self._asked = request.prompt

    def note(self, text: str) -> None:
        """Says it."""
        self._command.note(text)

    def on_encoded(self) -> None:
        """Shows a prompt that was written out."""
        if self.request.prompt != self._asked:
            self._command.note(f"prompt: {self.request.prompt}")
        super().on_encoded()

    def on_step(self, done: int, steps: int, estimate: sdltx.Latents) -> None:
        """Keeps the last of them."""
        self.estimate = done, steps, estimate

    def on_denoised(self) -> None:
        """Says how long it is, if the prompt said it."""
        self.estimate = None
        if self.request.options.get("duration") == "auto":
            self._command.note(f"{self.num_frames} frames, as the prompt asks for")
        super().on_denoised()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.files.output or self.files.latents or self.files.audio_out or "clip"
