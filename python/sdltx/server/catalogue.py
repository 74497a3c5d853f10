"""Files that requests may name: LoRAs and upscalers, by their names; nothing else of the disk can be asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .._files import is_folder
from ..errors import InvalidRequestError
from ..options import ROWS

_SUFFIX = ".safetensors"


class Catalogue:
    """Names of files, and where they lie."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """folders: of ``--files``; folders in them are not looked into."""
        self._folders = list(folders)
        self._given: dict[str, Path] = {}

    def add(self, files: Iterable[str]) -> None:
        """Adds what lies beside the model."""
        self._given.update({Path(file).name: Path(file) for file in files})

    def files(self) -> dict[str, Path]:
        """Returns what is there now."""
        found = dict(self._given)
        for folder in self._folders:
            if is_folder(folder):
                found |= {file.name: file for file in sorted(folder.glob(f"*{_SUFFIX}"))}
        return found

    def check(self, request: Mapping[str, Any]) -> None:
        """Raises InvalidRequestError for a name that there is not."""
        files = self.files()
        for name in request.keys() & ROWS.keys():
            for file in _named(name, request[name]):
                if not isinstance(file, str) or file not in files:
                    there = ", ".join(files) or "none"
                    shown = repr(file)[:60]
                    raise InvalidRequestError(f"[{name}] there is no file {shown} on this server; there are: {there}")

    def without_folders(self, text: str, folder: Path) -> str:
        """Returns a line without the places of files, which are nobody's business. folder: of a video."""
        for path in self.files().values():
            text = text.replace(str(path), path.name)
        return text.replace(f"{folder}/", "").replace(str(folder), "its folder")

    def located(self, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Returns a request with paths: of what is in the folder of its video, and of what is named.

        Raises InvalidRequestError for a name that there is not any more.
        """
        self.check(request)
        files = self.files()
        told: dict[str, Any] = {}
        for name, value in request.items():
            kind = ROWS[name]["kind"] if name in ROWS else ""
            if kind == "file":
                told[name] = str(files[value])
            elif kind == "files":
                told[name] = [str(files[one]) for one in _entries(value)]
            elif kind == "loras":
                pairs = [one if isinstance(one, list) else [one, 1.0] for one in _entries(value)]
                told[name] = [[str(files[file]), strength] for file, strength in pairs]
            elif name in ("images", "references"):
                told[name] = [_in(folder, one) for one in value]
            elif name in ("sound", "film"):
                told[name] = _in(folder, value)
            else:
                told[name] = value
        return told


def _entries(value: Any) -> list[Any]:
    """Several or one; lists are what they should be only where _named took them."""
    return [value] if isinstance(value, str) else value


def _named(name: str, value: Any) -> list[Any]:
    """The files that the value of an option names; raises InvalidRequestError for what names none."""
    kind = ROWS[name]["kind"]
    if kind == "file":
        return [value]
    if kind not in ("files", "loras"):
        return []
    entries = _entries(value)
    if not isinstance(entries, list):
        raise InvalidRequestError(f"[{name}] expected a list of files, got {type(value).__name__}")
    if kind == "files":
        return entries
    if any(isinstance(one, list) and len(one) != 2 for one in entries):
        raise InvalidRequestError(f"[{name}] expected names, or pairs of a name and a strength")
    return [one[0] if isinstance(one, list) else one for one in entries]


def _in(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(folder / value) if name in ("path", "mask", "attention") and value is not None else value
        for name, value in entry.items()
    }
