"""Model files with the names, shapes and configuration of the releases and next to no values: sparse files."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

REAL = Path(__file__).parent / "data" / "real"


def manifest(model: str) -> dict[str, Any]:
    """The tensors (name -> shape) and config of "ltx-2.3-22b" or "gemma-3-12b-it"; "f32" lists what is not BF16."""
    return json.loads(gzip.decompress((REAL / f"{model}.json.gz").read_bytes()))


def write_sparse(
    path: Path, tensors: dict[str, list[int]], f32: set[str] = frozenset(), metadata: dict[str, str] | None = None
) -> Path:
    """A safetensors file whose data takes no space on disk."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in tensors.items():
        size = prod(shape) * (4 if name in f32 else 2)
        header[name] = {"dtype": "F32" if name in f32 else "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
        # A file without any value is taken for a download that stopped.
        for name, shape in tensors.items():
            if prod(shape) >= 1 << 15:
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                file.write(b"\0\0\0\1")
    return path


def write_checkpoint(path: Path, wanted: Callable[[str], bool] = lambda name: True, name: str = "2.3.0") -> Path:
    """The checkpoint of LTX-2.3, or those of its tensors that are ``wanted``."""
    real = manifest("ltx-2.3-22b")
    tensors = {name: shape for name, shape in real["tensors"].items() if wanted(name)}
    return write_sparse(path, tensors, set(real["f32"]), {"config": json.dumps(real["config"]), "model_version": name})
