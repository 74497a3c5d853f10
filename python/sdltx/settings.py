"""How a clip was made, as its file keeps it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _arguments
from ._files import exists, is_file
from .errors import InvalidRequestError, ModelFileError, shortened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    from ._lazy import NDArray, np

KEPT = ("full", "plain", "none")
"""How much of its settings a clip keeps: all; all but the folders of files; nothing."""
LATENTS_KEY = "sdltx.latents"
"""Of the metadata of latents' files: JSON with frame_rate and settings."""
CONTEXT_KEY = "sdltx.context"
"""Of the metadata of contexts' files: JSON with the prompt."""
_FILES = ("upscalers", "distilled_lora", "loras", "loras_stage2", "images", "sound", "film", "references")
_PATHS = ("path", "mask", "attention")
_LONGEST_HEADER = 1 << 20  # bytes of what we write; the library takes fifty times as many of memory


def kept_settings(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns what a clip keeps of its settings: one of :data:`KEPT`."""
    if kind not in KEPT:
        raise InvalidRequestError(f"[output] metadata {kind!r} is unknown; use one of {', '.join(KEPT)}")
    if kind == "none":
        return {}
    names = _FILES if kind == "plain" else ()
    return {name: _without_folders(value) if name in names else value for name, value in settings.items()}


def _without_folders(value: Any) -> Any:
    """Paths are the texts of these settings."""
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, (list, tuple)):
        return [_without_folders(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _without_folders(one) if name in _PATHS else one for name, one in value.items()}
    return value


def read_latents(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Returns the tensors of latents' file by name, and its frame_rate and settings.

    Raises ModelFileError if the file is missing, damaged or of another kind.
    """
    tensors, told = read_values(path, LATENTS_KEY, "latents")
    try:
        return tensors, {"frame_rate": told["frame_rate"], "settings": dict(told["settings"])}
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"[latents] {path} is damaged: {error}") from None


def read_values(
    path: str | os.PathLike[str], key: str, what: str
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """Returns the tensors of a file by name, and what its metadata tell in JSON.

    key: of the metadata; what: the file holds, for errors. Raises ModelFileError if the file is missing, damaged or of
    another kind.
    """
    from safetensors import SafetensorError, safe_open

    if not isinstance(path, (str, os.PathLike)):
        _arguments.refuse(what, "path", "text or a Path", path)
    if not is_file(path):
        state = "is no file" if exists(path) else "does not exist"
        raise ModelFileError(f"[{what}] {path} {state}; give one made by save()")
    try:
        with Path(path).open("rb") as start:
            length = int.from_bytes(start.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"its header is told to have {length} bytes")
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(key)
            if text is None:
                raise ModelFileError(f"[{what}] {path} holds no {what}; expected a file made by save()")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        told = json.loads(text)
        if not isinstance(told, dict):
            raise ValueError(f"{key} is no object")
        return tensors, told
    except OSError as error:
        raise ModelFileError(f"[{what}] cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"[{what}] {path} is damaged: {shortened(error)}") from None
