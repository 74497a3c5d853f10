"""What model files are, without loading them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import _arguments, _core, library
from .errors import ModelFileError


@dataclass(frozen=True)
class PartReport:
    """A part of a model: its weights, in one file or several."""

    part: str
    """"transformer", "text encoder", ...; "other" is what belongs to none."""
    tensors: int
    parameters: int
    bytes: int
    types: dict[str, tuple[int, int]]
    """Of each type how many tensors and bytes there are."""
    used: bool
    """Whether this version makes clips with it."""


@dataclass(frozen=True)
class FileReport:
    """A model file."""

    path: str
    format: str
    """"safetensors" or "gguf"."""
    kind: str
    """"model", "a LoRA" or "a latent upscaler"."""
    bytes: int
    tensors: int
    metadata: dict[str, str]
    """The entries that are text, long ones cut."""
    sha256: str | None = None
    """If it was asked for."""


@dataclass(frozen=True)
class TensorReport:
    """A tensor of a model file."""

    name: str
    """As the networks call it."""
    stored_name: str
    part: str
    file: int
    """Its place in :attr:`ModelReport.files`."""
    type: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class ModelReport:
    """What a set of model files is. As text: the tables of ``sdltx-cli inspect``."""

    model: str | None
    """Such as "LTX-2.3"; this and the next three are None without a transformer."""
    version: str | None
    distilled: bool | None
    """By the names of files and folders: nothing inside a transformer tells."""
    preset: str | None
    note: str | None
    parts: tuple[PartReport, ...]
    missing: tuple[str, ...]
    """Parts that a clip with sound needs and these files do not have."""
    unexpected: tuple[str, ...]
    """Tensors among the weights of a network that has no use for them."""
    problems: tuple[str, ...]
    """Why the files cannot be loaded together, a line each."""
    doubts: tuple[str, ...]
    """Why they may not belong together, a line each."""
    files: tuple[FileReport, ...]
    tensors: tuple[TensorReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it in types that JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        """Returns it in lines for people."""
        return "\n".join(_lines(self))


def inspect(
    *paths: str | os.PathLike[str], sha256: bool = False, progress: Callable[[str, int, int], object] | None = None
) -> ModelReport:
    """Tells what model files are, what they lack, and everything that is wrong with them.

    Takes what :func:`sdltx.load` takes, and LoRAs and upscalers too. Nothing is loaded: tens of gigabytes take less
    than a second.

    sha256: also compute the checksums of the files, which reads them whole.
    progress: called with ("checksum", bytes done, bytes in all).

    Raises InvalidRequestError for what is no path. What is wrong with the files is in the report and raises nothing.
    """
    if not paths:
        _arguments.refuse("inspect", "paths", "at least one file or folder", paths)
    given = library.expanded("inspect", paths)
    found = json.loads(_core.inspect([_arguments.raw(_arguments.path("inspect", path)) for path in given]))
    files = [FileReport(**entry) for entry in found.pop("files")]
    if sha256:
        sums = _checksums([file.path for file in files], progress)
        files = [FileReport(**{**vars(file), "sha256": next(sums)}) for file in files]
    parts = (
        PartReport(**{**entry, "types": {name: tuple(of) for name, of in entry["types"].items()}})
        for entry in found.pop("parts")
    )
    tensors = (TensorReport(**{**entry, "shape": tuple(entry["shape"])}) for entry in found.pop("tensors"))
    for name in ("missing", "unexpected", "problems", "doubts"):
        found[name] = tuple(found[name])
    return ModelReport(**found, parts=tuple(parts), files=tuple(files), tensors=tuple(tensors))


def _checksums(paths: list[str], progress: Callable[[str, int, int], object] | None) -> Iterator[str]:
    total = sum(Path(path).stat().st_size for path in paths)
    done = 0
    for path in paths:
        checksum = hashlib.sha256()
        try:
            with Path(path).open("rb") as file:
                while piece := file.read(1 << 22):
                    checksum.update(piece)
                    done += len(piece)
                    if progress:
                        progress("checksum", done, total)
        except OSError as error:
            raise ModelFileError(f"[{path}] cannot read the file: {error.strerror}") from None
        yield checksum.hexdigest()


def size_text(size: float) -> str:
    """Returns a number of bytes as people read it, in powers of 1000 as shops and download pages count."""
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _lines(report: ModelReport) -> Iterator[str]:
    if report.model:
        kind = "distilled" if report.distilled else "counts as not distilled"
        yield f"{report.model}, version {report.version}, {kind} (preset {report.preset})"
    if report.note:
        yield f"note: {report.note}"
    for file in report.files:
        what = "" if file.kind == "model" else f", {file.kind}"
        yield f"file  {file.path}: {file.format}, {file.tensors} tensors, {size_text(file.bytes)}{what}"
        if file.sha256:
            yield f"      sha256 {file.sha256}"
    if report.parts:
        width = max(len(part.part) for part in report.parts)
        yield f"{'part':<{width}}  tensors  parameters      size  types"
        for part in report.parts:
            types = sorted(part.types.items(), key=lambda item: -item[1][1])
            listed = ", ".join(f"{name} {tensors}" for name, (tensors, _) in types)
            note = "" if part.used else "  (not used)"
            yield (
                f"{part.part:<{width}}  {part.tensors:7}  {part.parameters / 1e6:8.1f} M  {size_text(part.bytes):>8}  "
                f"{listed}{note}"
            )
    if report.missing:
        yield f"not among the files: {', '.join(report.missing)}"
    if report.unexpected:
        yield f"{len(report.unexpected)} weights have no use, such as {report.unexpected[0]}"
    for line in report.doubts:
        yield f"doubt: {line}"
    most = 20
    for line in report.problems[:most]:
        yield f"problem: {line}"
    if len(report.problems) > most:
        yield f"and {len(report.problems) - most} problems more; --json lists all"
