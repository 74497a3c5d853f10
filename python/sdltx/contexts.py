"""Prompts that were encoded before, kept in the user's cache folder: a text encoder is the largest part to load."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import _core
from ._files import cache_folder, replacing
from .errors import SdltxError
from .values import Context

if TYPE_CHECKING:
    from .pipeline import Pipeline
else:
    from ._lazy import Pipeline

_LIMIT = 2 << 30  # bytes; at full size 80 prompts
WORTH_KEEPING = 256 << 20
"""Bytes of a text encoder from which on it pays: those of small models encode as fast as a file is read."""


class ContextCache:
    """Contexts by tokens, text encoder, precision and device; those that were used longest ago make room for others."""

    def __init__(self, pipe: Pipeline, folder: Path | None = None, limit: int = _LIMIT) -> None:
        """folder: None for the user's own. limit: bytes that its files may have together."""
        self._pipe = pipe
        self._folder = folder or cache_folder() / "contexts"
        self._limit = limit
        self._model = "\n".join((pipe.encoder_fingerprint(), pipe.precision, pipe.device, _core.__version__))

    @classmethod
    def of(cls, pipe: Pipeline) -> ContextCache | None:
        """Returns the user's cache, None for a text encoder that is too small for it."""
        return cls(pipe) if pipe.encoder_bytes() >= WORTH_KEEPING else None

    def _path(self, prompt: str) -> Path:
        key = hashlib.sha256(self._model.encode())
        key.update(self._pipe.tokenize(prompt).tobytes())
        return self._folder / f"{key.hexdigest()}.safetensors"

    def load(self, prompt: str) -> Context | None:
        """Returns the context of a prompt if it is there."""
        from safetensors.numpy import load_file

        path = self._path(prompt)
        with suppress(Exception):  # a cache that is broken, in whatever way, is none
            tensors = load_file(path)
            os.utime(path)
            return Context(tensors["video"], tensors["audio"], prompt)
        return None

    def save(self, prompt: str, context: Context) -> None:
        """Keeps the context of a prompt. A cache that cannot be written is none."""
        from safetensors.numpy import save

        path = self._path(prompt)
        with suppress(OSError, SdltxError):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with replacing(path) as temporary:
                    temporary.write_bytes(save({"video": context.video, "audio": context.audio}))
            self._make_room(path)

    def _make_room(self, keep: Path) -> None:
        files = sorted(
            (file.stat().st_mtime_ns, file.stat().st_size, file) for file in self._folder.glob("*.safetensors")
        )
        total = sum(size for _, size, _ in files)
        for _, size, file in files:
            if total <= self._limit:
                break
            if file != keep:
                file.unlink(missing_ok=True)
                total -= size
