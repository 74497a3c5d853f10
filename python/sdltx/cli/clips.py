"""Clips that a command makes: what of each goes into which file, and what is kept when something fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sdltx
from sdltx.jobs import Job as ClipJob
from sdltx.jobs import decoded_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sdltx.contexts import ContextCache

    from ..media import VideoWriter
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


@dataclass(frozen=True)
class Files:
    """Where a clip goes; None: nowhere."""

    output: str | None = None
    audio_out: str | None = None
    latents: str | None = None

    def by_flag(self) -> list[tuple[str, str]]:
        """Those that there are, with the options of the command line that name them."""
        named = (("-o", self.output), ("--save-latents", self.latents), ("--audio-out", self.audio_out))
        return [(flag, path) for flag, path in named if path is not None]


class FileClip(ClipJob):
    """Writes a clip to its files, piece by piece."""

    sound_first = True

    def __init__(
        self, command: Job, request: sdltx.Request, files: Files, cache: ContextCache | None = None, **given: Any
    ) -> None:
        from .. import media

        super().__init__(request, **given)
        self.files = files
        self.pictures = files.output is not None and media.takes_pictures(files.output)
        self.sound = not command.args.no_audio and (
            files.audio_out is not None or (files.output is not None and media.takes_sound(files.output))
        )
        self.saved: str | None = None
        """Where the denoised clip is already."""
        self.estimate: tuple[int, int, sdltx.Latents] | None = None
        """After how many steps of how many, and what it was taken to be then."""
        self.written = False
        self.given = self.latents is not None
        """Whether the denoised clip is somebody's already."""
        self._command = command
        self._cache = cache
        self._known: set[str] = set()
        self._asked = request.prompt
        self._open = ExitStack()
        self._writer: VideoWriter | None = None
        self._sound: tuple[NDArray[np.float32], int] | None = None

    def look_up(self, guided: bool, negative_prompt: str) -> None:
        """Takes the contexts of its prompts from the cache. negative_prompt: of the model."""
        if self._cache is None or self.latents is not None:
            return
        if self.request.options.get("enhance"):  # what it will be is not known
            return
        self.context = self._cache.load(self.request.prompt)
        if guided:
            text = self.request.negative_prompt
            self.negative = self._cache.load(negative_prompt if text is None else text)
        self._known = {one.prompt for one in (self.context, self.negative) if one and one.prompt is not None}

    def on_encoded(self) -> None:
        """Keeps what was encoded for the next time, and shows a prompt that was written out."""
        if self.request.prompt != self._asked:
            self._command.note(f"prompt: {self.request.prompt}")
        for one in (self.context, self.negative):
            if self._cache is not None and one is not None and one.prompt is not None and one.prompt not in self._known:
                self._cache.save(one.prompt, one)

    def on_step(self, done: int, steps: int, estimate: sdltx.Latents) -> None:
        """Keeps the last of them."""
        self.estimate = done, steps, estimate

    def on_denoised(self) -> None:
        """Saves it, if that was asked for."""
        assert self.latents is not None
        self.estimate = None
        if self.request.options.get("duration") == "auto":
            self._command.note(f"{self.num_frames} frames, as the prompt asks for")
        if self.files.latents is not None:
            self.latents.save(self.files.latents)
            self.saved = self.files.latents
            self._command.note(f"wrote {self.files.latents}")

    def on_sound(self, sound: tuple[NDArray[np.float32], int] | None) -> None:
        """Writes its own file, and keeps it for that of the pictures."""
        from .. import sound as wav
        from ..media import fit_audio, kept_settings

        command, latents = self._command, self.latents
        assert latents is not None
        args = command.args
        rate = latents.frame_rate or sdltx.Video.frame_rate
        fitted = None if sound is None else fit_audio(*sound, self.num_frames, rate)
        for path in (self.files.audio_out, None if self.pictures else self.files.output):
            if path is None:
                continue
            if sound is None or fitted is None:
                raise sdltx.InvalidRequestError(f"[output] there is no sound for {path}")
            settings = kept_settings(decoded_settings(latents, None), args.metadata)
            wav.write(path, fitted, sound[1], sample_format=args.wav_format, metadata=settings)
            command.note(f"wrote {path}")
        self._sound = None if sound is None or fitted is None else (fitted, sound[1])

    def on_tiles(self, tiling: sdltx.Tiling) -> None:
        """Says so, as they change the pictures a little."""
        super().on_tiles(tiling)
        self._command.note(
            f"memory: decoded in tiles of {tiling.size} pixels and {tiling.frames} frames, as there is no room for more"
        )

    def on_frames(self, frames: NDArray[np.uint8]) -> None:
        """Writes them, after the sound."""
        if self._writer is None:
            self._writer = self._begin()
        self._writer.write_frames(frames)

    def _begin(self) -> VideoWriter:
        from .. import media

        command, latents = self._command, self.latents
        assert latents is not None
        assert self.files.output is not None
        writer = self._open.enter_context(
            media.VideoWriter(
                self.files.output,
                latents.frame_rate or sdltx.Video.frame_rate,
                audio_rate=None if self._sound is None else self._sound[1],
                metadata=media.kept_settings(decoded_settings(latents, self.tiling), command.args.metadata),
                overwrite=command.args.overwrite,
                progress=command.bars.show,
            )
        )
        if self._sound is not None:
            writer.write_audio(self._sound[0])
        return writer

    def on_decoded(self) -> None:
        """Gives the file its name."""
        from ..media import output_files

        self._open.close()
        self.written = True
        if self.pictures:
            assert self.files.output is not None
            files = output_files(self.files.output, self.num_frames, overwrite=True)
            self._command.note(
                f"wrote {self.files.output}" if len(files) == 1 else f"wrote {files[0].name} ... {files[-1].name}"
            )

    def abort(self) -> None:
        """Drops what is half written."""
        if self._writer is not None:
            self._writer.abort()
        self._open.pop_all()

    @property
    def name(self) -> str:
        """What people call it."""
        return self.files.output or self.files.latents or self.files.audio_out or "clip"
