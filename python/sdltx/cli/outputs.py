"""What a command reads and writes: no file is both, and none is written for two clips."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import sdltx

from .._files import is_folder
from ..writing import Files

_MODEL_SUFFIXES = (".safetensors", ".gguf", ".json", ".model")


class Outputs:
    """The files of a command. Everything is checked before the long run instead of after it."""

    def __init__(self, args: argparse.Namespace, *inputs: str | None) -> None:
        """inputs: files that are read, besides the model. To be made when nothing of ``args`` is left to fill in."""
        self._args = args
        self._read = {os.path.realpath(path) for path in _files_of([*args.model, *inputs])}
        self._written: dict[str, str] = {}

    def check(self, *clips: Files) -> None:
        """Checks all names of clips, and that of the preview; their lengths need not be known."""
        from .. import media, sound, values

        if (preview := getattr(self._args, "preview", None)) is not None:
            media.check_output(preview)
            if self._args.video is False:
                raise sdltx.InvalidRequestError(
                    "[output] a preview has pictures and --no-video makes none; leave it out"
                )
            if not media.takes_pictures(preview):
                raise sdltx.InvalidRequestError(f"[output] a preview has pictures and {preview} has none")
            self.claim("--preview", preview, [Path(preview)])
        for files in clips:
            for flag, path in files.by_flag():
                {"--save-latents": values.check_latents_output, "--audio-out": sound.check_output}.get(
                    flag, media.check_output
                )(path)
                if self._args.no_audio and flag != "--save-latents" and sound.is_sound(path):
                    silent = getattr(self._args, "silent_clip", None)
                    why = f"{silent} was made without" if silent else "--no-audio leaves no"
                    raise sdltx.InvalidRequestError(f"[output] {why} sound, so there is none for {path}; leave it out")
                if getattr(self._args, "video", None) is False and flag == "-o" and media.takes_pictures(path):
                    raise sdltx.InvalidRequestError(f"[output] --no-video makes sound alone; name a .wav, not {path}")
                self.claim(flag, path, [Path(path)])

    def check_length(self, num_frames: int, *clips: Files) -> None:
        """Checks files that are named by the number of a picture, of clips of this length."""
        if (preview := getattr(self._args, "preview", None)) is not None:
            self.claim("--preview", preview, self.files(preview, (num_frames - 1) // 8 + 1))
        for files in clips:
            if files.output is not None:
                self.claim("-o", files.output, self.files(files.output, num_frames))

    def files(self, path: str, num_frames: int) -> list[Path]:
        """Returns what a clip of this name becomes. Raises InvalidRequestError for what must not be replaced."""
        from .. import media

        written = media.output_files(path, num_frames, overwrite=True)
        self._refuse_inputs(f"{path}:", written)  # first, as a picture that is read is not from sdltx either
        return written if self._args.overwrite else media.output_files(path, num_frames)

    def claim(self, flag: str, path: str, files: Iterable[Path]) -> None:
        """Takes files for an output. Raises InvalidRequestError for those that are read, or another's."""
        files = list(files)
        self._refuse_inputs(flag, files)
        given = f"{flag} {path}".lstrip()
        for file in files:
            if (other := self._written.setdefault(os.path.realpath(file), given)) != given:
                raise sdltx.InvalidRequestError(f"[output] {other} and {given} both write {file}; give each its own")

    def _refuse_inputs(self, flag: str, files: Iterable[Path]) -> None:
        for file in files:
            if os.path.realpath(file) in self._read:
                raise sdltx.InvalidRequestError(f"[output] {flag} {file} is also an input; choose another name")


def _files_of(paths: Iterable[str | None]) -> Iterator[Path]:
    """The files among ``paths`` and, of folders, what a model is read from in them and one level below."""
    for path in filter(None, paths):
        file = Path(path)
        yield file
        if is_folder(file):
            yield from (f for f in (*file.glob("*"), *file.glob("*/*")) if f.suffix in _MODEL_SUFFIXES)
