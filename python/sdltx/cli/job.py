"""One command while it runs: its model, its outputs, and what becomes of a clip that cannot be written."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import sdltx

from .messages import Bars, LogLines, stderr

_LEAST_TILE, _LEAST_OVERLAP = 256, 64  # pixels
_LEAST_FRAMES, _LEAST_FRAME_OVERLAP = 32, 16
_MODEL_SUFFIXES = (".safetensors", ".gguf", ".json", ".model")


class Job:
    """A command; a ``with`` block around it lets its log records appear."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rescued: list[str] = []
        """What to say after an error."""
        self.saved: str | None = None
        """Where the denoised clip is already."""
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

    def check_outputs(self, *inputs: str | None) -> None:
        """Fails before the long run instead of after it. ``inputs``: files that are read, besides the model."""
        from .. import media, sound, values

        outputs = {
            "-o": self.args.output,
            "--save-latents": getattr(self.args, "save_latents", None),
            "--audio-out": self.args.audio_out,
            "--preview": getattr(self.args, "preview", None),
        }
        given = {flag: path for flag, path in outputs.items() if path is not None}
        if "-o" in given:
            media.check_output(given["-o"])
        if "--save-latents" in given:
            values.check_latents_output(given["--save-latents"])
        if "--preview" in given:
            media.check_output(given["--preview"])
            if not media.takes_pictures(given["--preview"]):
                raise sdltx.InvalidRequestError(f"[output] a preview has pictures and {given['--preview']} has none")
        if "--audio-out" in given:
            sound.check_output(given["--audio-out"])
        if self.args.no_audio and ("--audio-out" in given or ("-o" in given and sound.is_sound(given["-o"]))):
            raise sdltx.InvalidRequestError("[output] --no-audio leaves no sound to write; leave it out")
        if len({os.path.realpath(path) for path in given.values()}) < len(given):
            raise sdltx.InvalidRequestError(f"[output] {' and '.join(given)} name the same file; give each its own")
        read = {os.path.realpath(path) for path in _files_of([*self.args.model, *inputs])}
        for flag, path in given.items():
            if os.path.realpath(path) in read:
                raise sdltx.InvalidRequestError(f"[output] {flag} {path} is also an input; choose another name")

    def load(self) -> sdltx.Pipeline:
        """Opens the model of the command line."""
        args = self.args
        given = {name: getattr(args, name) for name in ("device", "precision", "threads", "offload")}
        options = {name: value for name, value in given.items() if value is not None}
        pipe = sdltx.load(*args.model, **options, progress=self.bars.show)
        self.bars.close()
        if note := pipe.info["note"]:
            self.note(f"note: {note}")
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

    @contextmanager
    def keeping(self, latents: sdltx.Latents) -> Iterator[None]:
        """Around what is done with a denoised clip: if it fails or is stopped, the clip is kept."""
        try:
            yield
        except BaseException:
            if kept := self.saved or self._rescue(latents):
                model = "".join(f" -m {shlex.quote(path)}" for path in self.args.model)
                output = shlex.quote(self.args.output or "clip.mp4")
                self.rescued.append(f"the denoised clip is kept in {kept}; go on with")
                self.rescued.append(f"  sdltx-cli decode {shlex.quote(kept)}{model} -o {output}")
            raise

    def save(self, latents: sdltx.Latents, path: str) -> None:
        """Saves a denoised clip."""
        latents.save(path)
        self.saved = path
        self.note(f"wrote {path}")

    def _rescue(self, latents: sdltx.Latents) -> str | None:
        output = Path(self.args.output or self.args.save_latents)
        for folder in (output.parent, Path(), Path(tempfile.gettempdir())):
            path = folder / f"{output.stem[:50]}.latents.safetensors"
            for number in range(2, 1000):
                if not path.exists():
                    break
                path = path.with_name(f"{output.stem[:50]}.latents-{number}.safetensors")
            try:
                latents.save(path)
            except sdltx.SdltxError:
                continue
            return str(path)
        self.rescued.append("the denoised clip is lost: no folder takes it")
        return None

    def write(self, pipe: sdltx.Pipeline, latents: sdltx.Latents) -> None:
        """Decodes straight into the output file."""
        from .. import sound as wav
        from ..media import VideoWriter, fit_audio
        from ..pipeline import decoded_settings

        args = self.args
        tiling = self.tiling()
        # The sound first: it is small, and the writer has to know whether there is any.
        sound = pipe.decode_audio(latents, progress=self.bars.show) if self.with_sound() else None
        rate = sound[1] if sound else None
        num_frames = 8 * (latents.video.shape[1] - 1) + 1
        for path in (args.audio_out, None if self.with_pictures() else args.output):
            if path is None:
                continue
            if sound is None:
                raise sdltx.InvalidRequestError(f"[output] there is no sound for {path}")
            samples = fit_audio(*sound, num_frames, latents.frame_rate)
            settings = decoded_settings(latents, None)
            wav.write(path, samples, sound[1], sample_format=args.wav_format, metadata=settings)
            self.note(f"wrote {path}")
        if not self.with_pictures():
            return
        with VideoWriter(
            args.output,
            latents.frame_rate,
            audio_rate=rate,
            metadata=decoded_settings(latents, tiling),
            progress=self.bars.show,
        ) as writer:
            if sound:
                writer.write_audio(fit_audio(*sound, num_frames, latents.frame_rate))
            pipe.decode_into(writer, latents, tiling=tiling, progress=self.bars.show)
        self.note(f"wrote {args.output}")


def _files_of(paths: Iterable[str | None]) -> Iterator[Path]:
    """The files among ``paths`` and, of folders, what a model is read from in them and one level below."""
    for path in filter(None, paths):
        file = Path(path)
        yield file
        if file.is_dir():
            yield from (f for f in (*file.glob("*"), *file.glob("*/*")) if f.suffix in _MODEL_SUFFIXES)
