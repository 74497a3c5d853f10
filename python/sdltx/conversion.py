"""Model files in other types and layouts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from . import _arguments, _core
from ._files import is_folder, replacing, target_of
from .errors import InvalidRequestError
from .progress import Callback

TYPES = tuple(_core.file_types)
"""What the transformer can become, by the names of llama.cpp."""
PARTS = tuple(_core.file_parts)
"""What can be a file of its own."""
_FLOATS = ("keep", "f32", "f16", "bf16")


@dataclass(frozen=True)
class PlannedFile:
    """A file that a conversion writes."""

    path: Path
    parts: tuple[str, ...]
    """Of :data:`PARTS`."""
    tensors: int
    bytes: int
    types: dict[str, int]
    """How many tensors there are of each type."""


class Plan:
    """A conversion that is checked and not begun. Takes the arguments of :func:`convert`."""

    def __init__(
        self,
        *paths: str | os.PathLike[str],
        output: str | os.PathLike[str],
        type: str = "q8_0",
        tensor_types: Mapping[str, str] | None = None,
        parts: Iterable[str] | None = None,
        imatrix: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:
        if not paths:
            _arguments.refuse("convert", "paths", "at least one file or folder", paths)
        self._paths = [_arguments.path("convert", path) for path in paths]
        rules = {} if tensor_types is None else tensor_types
        if not isinstance(rules, Mapping):
            _arguments.refuse("convert", "tensor_types", "a dict of patterns and types", rules)
        self._rules = [(str(pattern), str(kind)) for pattern, kind in rules.items()]
        self._imatrix = "" if imatrix is None else _arguments.path("convert", imatrix)
        self._threads = _arguments.threads("convert", threads)
        self._type = _arguments.instance("convert", "type", type, str, f"one of {', '.join(TYPES)}")
        if self._type not in TYPES:
            raise InvalidRequestError(f"[convert] type '{type}' is unknown; use one of {', '.join(TYPES)}")
        if isinstance(parts, str):
            _arguments.refuse("convert", "parts", "a list of names", parts)
        chosen = None if parts is None else [str(part) for part in parts]
        output = _arguments.path("convert", output)
        # A name without a suffix is that of a folder: a Path has no / at its end.
        suffix = Path(output).suffix
        self.folder = Path(output) if output.endswith(os.sep) or not suffix or is_folder(output) else None
        if self.folder is not None:
            self._conversions = self._for_folder(self.folder, chosen)
        elif suffix == ".gguf":
            self._conversions = [(Path(output), self._conversion("gguf", chosen or ["transformer"]))]
        elif suffix == ".safetensors":
            self._conversions = [(Path(output), self._conversion("safetensors", chosen or []))]
        else:
            raise InvalidRequestError(
                f"[convert] {output} is none of .gguf, .safetensors and a folder (with a / at its end)"
            )
        self._check_outputs()

    @property
    def files(self) -> tuple[PlannedFile, ...]:
        """What would be written."""
        return tuple(
            PlannedFile(path, tuple(c.parts), len(c.types), c.bytes, dict(Counter(kind.upper() for _, kind in c.types)))
            for path, c in self._conversions
        )

    def run(self, progress: Callback | None = None) -> tuple[Path, ...]:
        """Writes the files and returns their paths; either all of them appear or none."""
        made = self.folder is not None and not self.folder.exists()
        if made and self.folder is not None:
            try:
                self.folder.mkdir()
            except OSError as error:
                raise InvalidRequestError(f"[output] cannot make the folder {self.folder}: {error.strerror}") from None
        try:
            with ExitStack() as outputs:
                for path, conversion in self._conversions:
                    conversion.write(str(outputs.enter_context(replacing(path))), progress=progress)
        except BaseException:
            if made and self.folder is not None:
                with suppress(OSError):
                    self.folder.rmdir()
            raise
        return tuple(path for path, _ in self._conversions)

    def _conversion(self, format: str, parts: list[str], as_stored: bool = False) -> _core.Conversion:
        return _core.Conversion(
            [_arguments.raw(path) for path in self._paths],
            format=format,
            type="keep" if as_stored else self._type,
            tensor_types=[] if as_stored else self._rules,
            parts=parts,
            imatrix="" if as_stored else self._imatrix,
            threads=self._threads,
        )

    def _for_folder(self, folder: Path, chosen: list[str] | None) -> list[tuple[Path, _core.Conversion]]:
        conversions = []
        for part in chosen or self._conversion("gguf", [], as_stored=True).parts:
            if part == "transformer":
                conversion = self._conversion("gguf", [part])
                if self._type in _FLOATS and all(kind in _FLOATS for _, kind in conversion.types):
                    conversion = self._conversion("safetensors", [part])
                    suffix = "safetensors"
                else:
                    suffix = "gguf"
            else:
                conversion, suffix = self._conversion("safetensors", [part], as_stored=True), "safetensors"
            conversions.append((folder / f"{part}.{suffix}", conversion))
        return conversions

    def _check_outputs(self) -> None:
        for path, conversion in self._conversions:
            if self.folder is None or self.folder.exists():
                target = target_of(path)
                for source in conversion.files:
                    if os.path.realpath(source) == os.path.realpath(target):
                        raise InvalidRequestError(f"[output] {path} is also an input; choose another name")


def convert(
    *paths: str | os.PathLike[str],
    output: str | os.PathLike[str],
    type: str = "q8_0",
    tensor_types: Mapping[str, str] | None = None,
    parts: Iterable[str] | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: Callback | None = None,
) -> tuple[Path, ...]:
    """Writes model files in other types or another layout, and returns the paths of what was written.

    paths: files and folders of one model, as :func:`sdltx.load` takes them; a text encoder among them stays as it is,
        unless ``parts`` names it.
    output: NAME.gguf (the transformer with its connectors, named as the community's files are), NAME.safetensors (all
        parts in one file, as the release has them), or a folder, which gets a file for each part. An existing file is
        replaced when everything is written.
    type: one of :data:`TYPES`, for transformer and text encoder; "keep" leaves everything as it is stored. Small and
        sensitive weights stay F32 or BF16, connectors and embeddings become Q8_0 at most; the other parts keep their
        types.
    tensor_types: patterns of tensor names, as of a shell, and the type of those tensors; the first that fits counts.
    parts: which of :data:`PARTS` are written; None: as said under ``output``. "text_encoder" is that of LTX-2.5, which
        takes its tokenizer along; with "text_projection" the file has all that encodes prompts, as the release's.
    imatrix: how much each input matters, a file of llama.cpp's imatrix tool.
    threads: CPU threads; None: one per core.
    progress: called with ("convert", done, total); an exception it raises stops the conversion.

    Memory stays below 1 GiB whatever the size. Raises InvalidRequestError, ModelFileError, ModelMismatchError, and
    BackendError when the disk is full; no file is left behind then.
    """
    plan = Plan(
        *paths, output=output, type=type, tensor_types=tensor_types, parts=parts, imatrix=imatrix, threads=threads
    )
    return plan.run(progress)
