"""Clips that become files as they are made, and the prompts of them that were encoded before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InvalidRequestError
from .jobs import Job, decoded_settings
from .request import Request
from .values import Latents, Tiling, Video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .contexts import ContextCache
    from .media import VideoWriter


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


@dataclass(frozen=True)
class Manner:
    """How files are written."""

    metadata: str = "full"
    """What a clip tells of how it was made, of :data:`sdltx.settings.KEPT`."""
    wav_format: str = "s16"
    overwrite: bool = False
    """Whether pictures that are not from sdltx may be replaced by those of a sequence."""
    with_sound: bool = True
    progress: Callable[[str, int, int], object] | None = None
    """Hears ("write", done, total) while a file is finished."""


class WrittenClip(Job):
    """Writes a clip to its files, piece by piece."""

    sound_first = True

    def __init__(
        self,
        request: Request,
        files: Files,
        manner: Manner = Manner(),
        *,
        cache: ContextCache | None = None,
        **given: Any,
    ) -> None:
        """cache: of prompts; given: of :class:`sdltx.jobs.Job`."""
        from . import media

        super().__init__(request, **given)
        self.files = files
        self.manner = manner
        self.pictures = files.output is not None and media.takes_pictures(files.output)
        self.sound = manner.with_sound and (
            files.audio_out is not None or (files.output is not None and media.takes_sound(files.output))
        )
        self.saved: str | None = None
        """Where the denoised clip is already."""
        self.written = False
        self._cache = cache
        self._known: set[str] = set()
        self._open = ExitStack()
        self._writer: VideoWriter | None = None
        self._sound: tuple[NDArray[np.float32], int] | None = None

    def note(self, text: str) -> None:
        """Hears what was done, in a line."""

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
        """Keeps what was encoded for the next time."""
        for one in (self.context, self.negative):
            if self._cache is not None and one is not None and one.prompt is not None and one.prompt not in self._known:
                self._cache.save(one.prompt, one)

    def on_denoised(self) -> None:
        """Saves it, if that was asked for."""
        assert self.latents is not None
        if self.files.latents is not None:
            self.latents.save(self.files.latents)
            self.saved = self.files.latents
            self.note(f"wrote {self.files.latents}")

    def on_sound(self, sound: tuple[NDArray[np.float32], int] | None) -> None:
        """Writes its own file, and keeps it for that of the pictures."""
        from . import sound as wav
        from .media import fit_audio, kept_settings

        latents = self.latents
        assert latents is not None
        rate = latents.frame_rate or Video.frame_rate
        fitted = None if sound is None else fit_audio(*sound, self.num_frames, rate)
        for path in (self.files.audio_out, None if self.pictures else self.files.output):
            if path is None:
                continue
            if sound is None or fitted is None:
                raise InvalidRequestError(f"[output] there is no sound for {path}")
            settings = kept_settings(decoded_settings(latents, None), self.manner.metadata)
            wav.write(path, fitted, sound[1], sample_format=self.manner.wav_format, metadata=settings)
            self.note(f"wrote {path}")
        self._sound = None if sound is None or fitted is None else (fitted, sound[1])

    def on_tiles(self, tiling: Tiling) -> None:
        """Says so, as they change the pictures a little."""
        super().on_tiles(tiling)
        self.note(
            f"memory: decoded in tiles of {tiling.size} pixels and {tiling.frames} frames, as there is no room for more"
        )

    def on_frames(self, frames: NDArray[np.uint8]) -> None:
        """Writes them, after the sound."""
        if self._writer is None:
            self._writer = self._begin()
        self._writer.write_frames(frames)

    def _begin(self) -> VideoWriter:
        from . import media

        latents: Latents | None = self.latents
        assert latents is not None
        assert self.files.output is not None
        writer = self._open.enter_context(
            media.VideoWriter(
                self.files.output,
                latents.frame_rate or Video.frame_rate,
                audio_rate=None if self._sound is None else self._sound[1],
                metadata=media.kept_settings(decoded_settings(latents, self.tiling), self.manner.metadata),
                overwrite=self.manner.overwrite,
                progress=self.manner.progress,
            )
        )
        if self._sound is not None:
            writer.write_audio(self._sound[0])
        return writer

    def on_decoded(self) -> None:
        """Gives the file its name."""
        from .media import output_files

        self._open.close()
        self.written = True
        if self.pictures:
            assert self.files.output is not None
            files = output_files(self.files.output, self.num_frames, overwrite=True)
            self.note(
                f"wrote {self.files.output}" if len(files) == 1 else f"wrote {files[0].name} ... {files[-1].name}"
            )

    def abort(self) -> None:
        """Drops what is half written, so that it can be made again."""
        if self._writer is not None:
            self._writer.abort()
        self._open.pop_all()
        self._writer = self._sound = None
