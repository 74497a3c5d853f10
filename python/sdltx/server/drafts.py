"""What was sent as a request of the core whose files are kept: OpenAI's fields, and all options by their names."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..options import ROWS
from .bodies import MOST_FILES, Body, Upload
from .problems import Problem
from .store import COMPLETED, Store, is_id

FORMATS = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "webp": "image/webp",
    "wav": "audio/wav",
}
"""What a video may be written as, with the type that browsers know."""
MATERIAL = ("input_reference", "last_image", "images", "sound", "film", "mask", "references")
"""Fields that name files."""
HIDDEN = ("enhanced_from",)
"""Options that nobody gives: they tell of a video that was made."""
_TAKEN = (ROWS.keys() | {"prompt", "negative_prompt", "images", "sound", "film", "references", "tiling"}) - set(HIDDEN)
_LARGE_SIZE = 64  # pixels: what both stages of a recipe can be multiples of
_SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/heic": ".heic",
    "image/avif": ".avif",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
}


@dataclass(frozen=True)
class Draft:
    """A request as it is kept, whose files are in the folder of its video."""

    request: dict[str, Any]
    file: str


def draft(body: Body, folder: Path, store: Store) -> Draft:
    """Puts the files of a body into a folder, which is made, and returns what is asked for. Blocks.

    Raises Problem for fields that name no file, and for sizes and lengths that are none.
    """
    told = {name: value for name, value in body.fields.items() if value is not None}
    told.pop("model", None)
    format = told.pop("format", "wav" if told.get("video") is False else "mp4")
    if not isinstance(format, str) or format not in FORMATS:
        raise Problem(422, f"[format] {str(format)[:60]!r} is unknown; use one of {', '.join(FORMATS)}")
    _set_size(told)
    _set_length(told)
    folder.mkdir(parents=True)
    inputs = _Inputs(folder, body.uploads, store)
    _set_files(told, body.uploads, inputs)
    if unused := body.uploads.keys() - inputs.used:
        raise Problem(
            422, f"[form] nothing asks for the file {min(unused)[:60]!r}; fields for files: {', '.join(MATERIAL)}"
        )
    _check_names_and_values(told)
    return Draft(told, f"video.{format}")


def _check_names_and_values(told: Mapping[str, Any]) -> None:
    """What clips tell beside their options is nothing to ask for, and what is kept has to be JSON for everybody."""
    if unknown := sorted(name[:60] for name in told.keys() - _TAKEN):
        raise Problem(422, f"[request] there is no option {', '.join(unknown)}")
    for name, value in told.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:
            raise Problem(422, f"[{name}] it has a number that is not finite, or half a character") from None


def _set_size(told: dict[str, Any]) -> None:
    size = told.pop("size", None)
    if size is None:
        return
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size) if isinstance(size, str) else None
    if match is None:
        raise Problem(422, f"[size] {str(size)[:60]!r} is no size such as 1280x704")
    if "width" in told or "height" in told:
        raise Problem(422, "[size] give a size, or width and height, but not both")
    told["width"], told["height"] = (nearest_side(int(side)) for side in match.groups())


def nearest_side(pixels: int) -> int:
    """Returns a side that models can make: what is none comes to the nearest multiple of 64."""
    if pixels % 32 == 0:
        return pixels
    return max(_LARGE_SIZE, (pixels + _LARGE_SIZE // 2 - 1) // _LARGE_SIZE * _LARGE_SIZE)


def _set_length(told: dict[str, Any]) -> None:
    seconds = told.pop("seconds", None)
    if seconds is None:
        return
    if told.keys() & {"duration", "num_frames"}:
        raise Problem(422, "[seconds] give seconds, duration or num_frames, but not several of them")
    try:
        if isinstance(seconds, bool):
            raise ValueError
        value = float(seconds)
    except (TypeError, ValueError, OverflowError):
        raise Problem(422, f"[seconds] {str(seconds)[:60]!r} is no number") from None
    told["duration"] = value


class _Inputs:
    """The files that a video is made from."""

    def __init__(self, folder: Path, uploads: Mapping[str, list[Upload]], store: Store) -> None:
        self._folder, self._uploads, self._store = folder, uploads, store
        self._count = 0
        self.used: set[str] = set()
        """Names of parts of the form that were asked for."""

    def _next(self, suffix: str) -> Path:
        self._count += 1
        if self._count > MOST_FILES:
            raise Problem(422, f"[images] more than {MOST_FILES} files are too many")
        return self._folder / f"input-{self._count}{suffix}"

    def add(self, upload: Upload) -> str:
        """Writes a file of the form; returns its name."""
        path = self._next(_suffix(upload.type, upload.name))
        upload.file.seek(0)
        with path.open("wb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)
        return path.name

    def named(self, field: str, value: Any) -> str:
        """Returns the name of the file that a field means: a data address, a part of the form, or a video of ours."""
        if isinstance(value, dict):
            value = value.get("image_url") or value.get("file")
        if not isinstance(value, str):
            raise Problem(422, f"[{field}] expected a file: a part of the form, a data: address or the id of a video")
        if value.startswith("data:"):
            return self._decoded(field, value)
        if (parts := self._uploads.get(value)) is not None:
            self.used.add(value)
            return self.add(parts[0])
        if (path := self._of_video(value)) is not None:
            copy = self._next(path.suffix)
            try:
                os.link(path, copy)
            except OSError:
                shutil.copyfile(path, copy)
            return copy.name
        shown = repr(value)[:60]
        raise Problem(422, f"[{field}] {shown} is no part of the form, no data: address and no finished video here")

    def _of_video(self, value: str) -> Path | None:
        id, _, name = value.partition("/")
        if not is_id(id) or (video := self._store.get(id)) is None:
            return None
        if not name:
            return self._store.folder_of(id) / video.file if video.status == COMPLETED else None
        path = self._store.folder_of(id) / name
        return path if re.fullmatch(r"input-\d+\.\w+", name) and path.exists() else None

    def _decoded(self, field: str, address: str) -> str:
        head, comma, data = address.partition(",")
        try:
            if not comma or not head.endswith(";base64"):
                raise ValueError
            content = base64.b64decode(data, validate=True)
        except (ValueError, binascii.Error):
            raise Problem(422, f"[{field}] a data: address is data:TYPE;base64,...") from None
        path = self._next(_suffix(head[5:].split(";")[0], ""))
        path.write_bytes(content)
        return path.name


def _suffix(type: str, name: str) -> str:
    """The suffix of a file: libraries look into files, but for a film or a picture as a reference."""
    suffix = Path(name).suffix.lower()
    return _SUFFIXES.get(type.lower()) or (suffix if suffix in _SUFFIXES.values() else ".bin")


def _set_files(told: dict[str, Any], uploads: Mapping[str, list[Upload]], inputs: _Inputs) -> None:
    images = [_entry("images", one, inputs) for one in _listed("images", told.pop("images", None))]
    first, last = told.pop("input_reference", None), told.pop("last_image", None)
    if first is not None or "input_reference" in uploads:
        images.append({"path": inputs.named("input_reference", first or "input_reference"), "frame": 0})
    if last is not None or "last_image" in uploads:
        images.append({"path": inputs.named("last_image", last or "last_image"), "frame": -1})
    images += [{"path": inputs.add(one), "frame": 0} for one in uploads.get("images", ())]
    inputs.used |= {"images", "references"}
    if images:
        told["images"] = images
    references = [_entry("references", one, inputs) for one in _listed("references", told.pop("references", None))]
    references += [{"path": inputs.add(one)} for one in uploads.get("references", ())]
    if references:
        told["references"] = references
    for name in ("sound", "film"):
        if (value := told.pop(name, None)) is not None or name in uploads:
            told[name] = _entry(name, value if value is not None else name, inputs)
            if isinstance(value, dict) and "file" not in value and name in uploads:
                told[name]["path"] = inputs.named(name, name)
    mask = told.pop("mask", None)
    if mask is not None or "mask" in uploads:
        if "film" not in told:
            raise Problem(422, "[mask] a mask is of a film; send the film as well")
        told["film"]["mask"] = inputs.named("mask", mask or "mask")


def _listed(field: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Problem(422, f"[{field}] expected a list")
    return value


_ENTRIES = {
    "images": ("frame", "strength", "crf"),
    "references": ("strength", "attention"),
    "sound": ("start",),
    "film": ("mask",),
}


def _entry(field: str, value: Any, inputs: _Inputs) -> dict[str, Any]:
    """A picture, reference, sound or film: its file, or an object with ``file`` and more."""
    if not isinstance(value, dict):
        return {"path": inputs.named(field, value)}
    if unknown := value.keys() - {"file", *_ENTRIES[field]}:
        raise Problem(422, f"[{field}] there is no {', '.join(sorted(map(str, unknown)))[:100]}")
    told = {name: value[name] for name in _ENTRIES[field] if value.get(name) is not None}
    for name in ("mask", "attention"):
        if name in told:
            told[name] = inputs.named(field, told[name])
    if value.get("file") is not None or field not in ("sound", "film"):
        told["path"] = inputs.named(field, value.get("file"))
    return told
