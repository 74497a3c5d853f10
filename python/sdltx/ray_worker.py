"""One device of a Ray cluster, and the clips that it makes: what ``sdltx-cli batch --on ray://...`` runs there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import _core, library
from ._demo import demo_files
from .contexts import ContextCache
from .errors import BackendError, OutOfMemoryError, SdltxError
from .media import output_files
from .pipeline import Pipeline, load
from .request import Request
from .values import Context
from .writing import Files, Manner, WrittenClip


@dataclass(frozen=True)
class Task:
    """A clip to be made; its pictures, sound and films are read already."""

    request: Request
    output: str
    """Name of the file, of which the suffix counts."""
    manner: Manner


@dataclass(frozen=True)
class Made:
    """What became of it."""

    files: list[bytes]
    """As :func:`sdltx.media.output_files` names them."""
    num_frames: int
    error: SdltxError | None = None


@dataclass(frozen=True)
class Loaded:
    """A model on a device."""

    version: str
    """Of sdltx."""
    info: dict[str, Any]
    device: str
    files: list[tuple[str, int]]
    """Names and sizes of what was opened."""
    upscalers: dict[str, str]
    error: SdltxError | None = None


class RayWorker:
    """Holds a pipeline. Its methods are called from elsewhere, one at a time but for :meth:`progress`.

    Errors of sdltx are given back as values: Ray would put its own around them.
    """

    def __init__(self, model: Sequence[str], options: Mapping[str, Any], cache: bool) -> None:
        """model: files, folders and names of sets, as they are called on this machine; options: of load()."""
        self._model, self._options, self._cached = list(model), dict(options), cache
        self._pipe: Pipeline | None = None
        self._cache: ContextCache | None = None
        self._contexts: dict[str, Context] = {}
        self._progress: tuple[str, float, float | None] = ("", 0.0, None)

    def load(self) -> Loaded:
        """Opens the model."""
        try:
            files = library.expanded("load", self._model) or demo_files()
            pipe = self._pipe = load(*files, **self._options, progress=False)
            pipe.require("text encoder", "text projection", "transformer")
            if self._cached:
                self._cache = ContextCache.of(pipe)
            opened = [(path.name, path.stat().st_size) for path in pipe.opened_files()]
            return Loaded(_core.__version__, pipe.info.to_dict(), pipe.device, opened, pipe.upscalers())
        except SdltxError as error:
            return Loaded(_core.__version__, {}, "", [], {}, error)

    def resolve(self, requests: Sequence[Request]) -> list[dict[str, Any] | SdltxError]:
        """Returns what each request comes to, or why it cannot be made."""
        assert self._pipe is not None
        found: list[dict[str, Any] | SdltxError] = []
        for request in requests:
            try:
                resolved = self._pipe.resolve(request).to_dict()
                self._pipe.check(request)
                found.append(resolved)
            except SdltxError as error:
                found.append(error)
        return found

    def encode(self, requests: Sequence[Request]) -> None:
        """Encodes the prompts of clips that are made next, with the text encoder loaded once."""
        assert self._pipe is not None
        self._contexts.clear()
        for request in requests:
            text = request.prompt
            if request.options.get("enhance") or text in self._contexts:
                continue
            context = self._cache.load(text) if self._cache is not None else None
            if context is None:
                try:
                    context = self._pipe.encode(text, progress=False)
                except SdltxError:
                    return  # which the clip tells, as itself
                if self._cache is not None:
                    self._cache.save(text, context)
            self._contexts[text] = context

    def make(self, task: Task) -> Made:
        """Makes a clip."""
        assert self._pipe is not None
        with tempfile.TemporaryDirectory(prefix="sdltx-") as folder:
            output = Path(folder) / task.output
            context = None if task.request.options.get("enhance") else self._contexts.get(task.request.prompt)
            clip = WrittenClip(
                task.request, Files(str(output)), replace(task.manner, progress=self._hear), context=context
            )
            self._progress = ("", 0.0, None)
            try:
                self._pipe.run([clip], progress=self._hear)
                if clip.error is not None:
                    raise clip.error
                files = output_files(output, clip.num_frames, overwrite=True)
                return Made([file.read_bytes() for file in files], clip.num_frames)
            except SdltxError as error:
                return Made([], 0, error)
            except MemoryError as error:
                return Made([], 0, OutOfMemoryError(f"[ray] {error or 'out of memory'}"))
            except OSError as error:
                return Made([], 0, BackendError(f"[ray] {error}"))
            finally:
                clip.abort()

    def _hear(self, phase: str, _done: int, _total: int) -> None:
        assert self._pipe is not None
        self._progress = (phase, *self._pipe.whole_progress)

    def progress(self) -> tuple[str, float, float | None]:
        """How far the clip is that is being made: its phase, a fraction, seconds left."""
        return self._progress
