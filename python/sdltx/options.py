"""What a clip is asked to be: the arguments of sample() and generate(), and how they reach the core.

Which options there are is told by csrc/clip/options.def; nothing here knows one by its name.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from . import _arguments, _core
from ._options import Options
from .errors import InvalidRequestError
from .records import Recipe, Task

__all__ = [
    "NAMES",
    "ROWS",
    "TYPES",
    "Options",
    "core_options",
    "explicit",
    "listed_loras",
    "recipes",
    "sentences",
    "settled",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in _core.option_table()}
"""The rows of options.def, by name: kind, group, unit, range, flags, metavar, remembered, inherited, since, help, docs,
choices."""
TYPES = {
    "text": "str",
    "choice": "str",
    "whole": "int",
    "real": "float | Fraction",
    "flag": "bool",
    "duration": "str | float",
    "wholes": "Sequence[int]",
    "reals": "Sequence[float]",
    "file": "File",
    "files": "File | Sequence[File]",
    "loras": "Iterable[Lora]",
}
"""What callers may pass for options of a kind, as annotations spell it."""


def sentences(row: Mapping[str, Any]) -> str:
    """Returns what an option is, as docstrings and docs say it."""
    text = f"{row['help'][0].upper()}{row['help'][1:]}."
    if row["unit"] and row["unit"].split(",")[0] not in row["help"]:
        text = f"{row['unit'][0].upper()}{row['unit'][1:]}."
    if row["choices"]:
        text += f" One of {', '.join(row['choices'])}."
    elif row["range"] and row["range"][1] < 1 << 20:
        text += f" From {row['range'][0]:g} to {row['range'][1]:g}."
    return f"{text} {row['docs']}".rstrip()


def explicit(function: _Function) -> _Function:
    """Spells the options out where a function takes ``**options``: in its signature, and at the end of its docstring.

    So ``help()``, Jupyter and sphinx show them; type checkers read the same of :class:`Options`.
    """
    own = inspect.signature(function)
    given = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=f"{TYPES[ROWS[name]['kind']]} | None"
        )
        for name in NAMES
    ]
    function.__annotations__.pop("options", None)  # Unpack[Options], which type checkers read
    function.__signature__ = own.replace(parameters=[*given, *keywords])  # type: ignore[attr-defined]
    lines = [f"{name}: {sentences(ROWS[name])}" for name in NAMES]
    function.__doc__ = inspect.cleandoc(function.__doc__ or "") + "\n\nOptions:\n\n" + "\n".join(lines) + "\n"
    return function


def _file(where: str, _name: str, value: Any) -> str:
    return _arguments.path(where, value)


def _files(_where: str, name: str, value: Any) -> tuple[str, ...]:
    files = [value] if isinstance(value, (str, os.PathLike)) or not isinstance(value, Sequence) else value
    return tuple(_arguments.path(name, one) for one in files)


def _loras(_where: str, name: str, given: Any) -> tuple[tuple[str, float], ...]:
    if isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Iterable):
        _arguments.refuse("lora", name, "a list of files, or of files and strengths", given)
    found = []
    for one in given:
        path, strength = one if isinstance(one, (tuple, list)) and len(one) == 2 else (one, 1.0)
        value = _arguments.real("lora", "strength", strength)
        if not math.isfinite(value):
            raise InvalidRequestError(f"[lora] strength {value} is not a finite number")
        found.append((_arguments.path("lora", path), value))
    return tuple(found)


def _wholes(where: str, name: str, values: Any) -> tuple[int, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        _arguments.refuse(where, name, "a list of whole numbers", values)
    return tuple(_arguments.whole(where, name, value) for value in values)


def _reals(where: str, name: str, values: Any) -> tuple[float, ...]:
    return tuple(_arguments.numbers(where, name, values) or ())


def _duration(where: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{_arguments.real(where, name, value):.9g}s"


def _choice(where: str, name: str, value: Any) -> str:
    return _arguments.instance(where, name, value, str, f"one of {', '.join(ROWS[name]['choices'])}")


def _flag(where: str, name: str, value: Any) -> bool:
    return _arguments.instance(where, name, value, bool, "True or False")


_READ: dict[str, Callable[[str, str, Any], Any]] = {
    "text": lambda _where, name, value: _arguments.text("encode", name, value),
    "choice": _choice,
    "whole": _arguments.whole,
    "real": _arguments.real,
    "flag": _flag,
    "duration": _duration,
    "wholes": _wholes,
    "reals": _reals,
    "file": _file,
    "files": _files,
    "loras": _loras,
}
NAMES = tuple(name for name, row in ROWS.items() if row["group"] not in ("prompt", "decoding"))
"""Options that are keywords of sample() and generate(); prompts and tiles are arguments of their own."""


def settled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options as plain numbers, texts and tuples, without those that are None.

    To be called once, where options come in: iterators can be read but once, and files may be relative to a folder that
    changes. What comes out may go in again.

    Raises InvalidRequestError for values of another kind, TypeError for names that there are not.
    """
    if unknown := sorted(given.keys() - set(NAMES)):
        raise TypeError("; ".join(f"there is no option {name}{_meant(name)}" for name in unknown))
    return {name: read(name, given[name]) for name in NAMES if given.get(name) is not None}


# What others call options, in programs that people come from.
_OTHER_NAMES = {
    "fps": "frame_rate",
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "frames": "num_frames",
    "length": "num_frames",
    "video_frames": "num_frames",
    "lora": "loras",
    "sigma": "sigmas",
    "seconds": "duration",
    "resolution": "width, height",
    "size": "width, height",
}


def _meant(name: str) -> str:
    """What an option that there is not may be called."""
    import difflib

    near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else difflib.get_close_matches(name, NAMES, 3, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(NAMES)}"


def read(name: str, value: Any) -> Any:
    """Returns the value of an option as a plain one. Raises InvalidRequestError for another kind."""
    kind = ROWS[name]["kind"]
    read = _READ[kind]("sample", name, value)
    return _arguments.unicode("sample", name, read) if isinstance(read, str) and kind != "file" else read


def core_options(given: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> _core.ClipOptions:
    """Returns options as the core takes them; ``more``: prompts and tiles. Raises as :func:`settled`."""
    return _core.ClipOptions(**{name: _raw(name, value) for name, value in settled(given).items()}, **(more or {}))


def _raw(name: str, value: Any) -> Any:
    """Paths as the core takes them."""
    kind = ROWS[name]["kind"]
    if kind == "loras":
        return [(_arguments.raw(path), strength) for path, strength in value]
    if kind == "files":
        return [_arguments.raw(path) for path in value]
    return _arguments.raw(value) if kind == "file" else value


def listed_loras(given: Any) -> list[list[Any]]:
    """Returns LoRAs as a clip remembers them: paths and strengths."""
    return [list(one) for one in _loras("lora", "loras", given or ())]


def recipes() -> list[Recipe]:
    """Returns the ways to make a clip."""
    return [Recipe(**one) for one in _core.recipe_table()]


def tasks() -> list[Task]:
    """Returns what can be made of what."""
    return [Task(**one) for one in _core.task_table()]
