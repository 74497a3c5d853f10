"""The lines of a batch: a JSON object each, with the options of a clip by their names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import sdltx
from sdltx import _arguments, pipeline

from .._files import exists

SUFFIXES = ("mp4", "webm", "gif", "webp", "png", "wav")
"""Of what a line may write."""
_MOST_BYTES = 64 << 20


class Line(NamedTuple):
    """What one asks for, and the name of its file."""

    request: sdltx.Request
    output: str


def read(path: str, defaults: Mapping[str, Any], suffix: str) -> list[Line]:
    """Returns what the lines of a file ask for; "-" is standard input.

    defaults: for all that do not say it; suffix: of files that have no name. Raises InvalidRequestError, which names
    the line.
    """
    near = "" if path == "-" else os.path.dirname(path)  # noqa: PTH120
    lines = [_line(number, text, defaults, near, suffix) for number, text in _texts(path)]
    names: set[str] = set()
    for line in lines:
        if line.output in names:
            raise sdltx.InvalidRequestError(f"[batch] several lines write {line.output}; give each its own output")
        names.add(line.output)
    return lines


def _texts(path: str) -> list[tuple[int, str]]:
    """The lines that are not empty, each with its number."""
    try:
        if path != "-":
            with Path(_arguments.path("batch", path)).open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        elif sys.stdin is None:
            raise sdltx.InvalidRequestError("[batch] standard input is closed; give a file")
        else:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[batch] cannot read {path}: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise sdltx.InvalidRequestError(f"[batch] {path} is too long; at most {_MOST_BYTES >> 20} MiB are possible")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[batch] {path} is not UTF-8 text (byte {error.start})") from None
    # Not splitlines(): JSON may hold other characters that end a line.
    found = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise sdltx.InvalidRequestError(f"[batch] {path} has no lines")
    return found


def _line(number: int, text: str, defaults: Mapping[str, Any], near: str, suffix: str) -> Line:
    where = f"[batch] line {number}"
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise sdltx.InvalidRequestError(f"{where} is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise sdltx.InvalidRequestError(f"{where}: expected an object with options by name")
    name = told.pop("output", None)
    if name is None:
        name = f"{number:04d}.{suffix}"
    try:
        if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise sdltx.InvalidRequestError(f"output {name!r} is no name of a file in the folder of -o")
        _arguments.path("output", name)
        if Path(name).suffix[1:].lower() not in SUFFIXES:
            raise sdltx.InvalidRequestError(
                f"output {name!r} has no suffix that sdltx knows; use one of {', '.join(SUFFIXES)}"
            )
        # A line tells its length in its own way.
        length = {"duration", "num_frames"} if told.keys() & {"duration", "num_frames"} else set()
        others = {name: value for name, value in defaults.items() if name not in length}
        request = sdltx.Request.from_dict({**others, **told}, lambda path: _beside(path, near))
        pipeline.check(prompt=request.prompt, tiling=request.tiling, **request.options)
    except sdltx.InvalidRequestError as error:
        raise sdltx.InvalidRequestError(f"{where}: {error}") from None
    return Line(request, name)


def _beside(path: str, folder: str) -> str:
    """A path of a line: as it says, else seen from the folder of the lines."""
    beside = os.path.join(folder, path)  # noqa: PTH118
    return beside if folder and not exists(path) and exists(beside) else path
