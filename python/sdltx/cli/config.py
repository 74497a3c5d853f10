"""Options from the user's config file, as far as command line and environment variables say nothing.

Only options of which no clip remembers anything: where models lie and run, and how files are written.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sdltx

from .. import environment, library
from .._files import is_file

NAMES = (*environment.DEFAULTS, "model", "metadata", "wav_format", "no_cache", "overwrite")
"""What the file may hold."""
_SHORT = 2  # characters of -m
_KINDS: dict[str, tuple[type, ...]] = {
    "device": (str,),
    "precision": (str,),
    "offload": (str,),
    "threads": (int,),
    "max_memory": (int, float),
    "max_vram": (int, float),
    "metadata": (str,),
    "wav_format": (str,),
    "no_cache": (bool,),
    "overwrite": (bool,),
}


_MOST_BYTES, _MOST_DOTS = 1 << 16, 1000


def path() -> Path | None:
    """Returns the file: SDLTX_CONFIG, or config.toml in the user's config folder; None if SDLTX_CONFIG is empty."""
    named = os.environ.get("SDLTX_CONFIG")
    if named is not None:
        return library.folder_named("config", named) if named else None
    import platformdirs

    return platformdirs.user_config_path("sdltx") / "config.toml"


def apply(args: argparse.Namespace, words: Sequence[str]) -> None:
    """Fills in what the command line, ``words``, has left open. Raises InvalidRequestError for a file without sense."""
    file = path()
    if file is None or not is_file(file):
        if os.environ.get("SDLTX_CONFIG"):
            raise sdltx.InvalidRequestError(f"[config] there is no file {file}; see SDLTX_CONFIG")
        return
    for name, value in _read(file).items():
        actions = [action for action in args.parser._actions if action.dest == name]
        if not actions:
            continue
        if (choices := actions[0].choices) is not None and value not in choices:
            raise sdltx.InvalidRequestError(
                f"[config] {file}: {name} is {value!r}; use one of {', '.join(map(str, choices))}"
            )
        by_variable = name in environment.DEFAULTS and os.environ.get(environment.variable(name))
        flags = [flag for action in actions for flag in action.option_strings]
        if not by_variable and not _is_given(flags, words):
            setattr(args, name, value)


def _is_given(flags: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the command line has an option, also as --option=value and -oVALUE."""
    return any(
        word == flag or word.startswith(f"{flag}=") or (len(flag) == _SHORT and word.startswith(flag))
        for word in words
        for flag in flags
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        import tomli as tomllib
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
        # Keys in keys in keys take the library minutes and gigabytes; ours are in none.
        if len(data) > _MOST_BYTES or data.count(b".") > _MOST_DOTS:
            raise ValueError("it is too long to be a configuration")
        values = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise sdltx.InvalidRequestError(f"[config] {file}: {error}") from None
    return {name: _checked(file, name, value) for name, value in values.items()}


def _checked(file: Path, name: str, value: Any) -> Any:
    if name not in NAMES:
        import difflib

        near = difflib.get_close_matches(name, NAMES, 1)
        raise sdltx.InvalidRequestError(
            f"[config] {file}: there is no option {name}; " + (f"did you mean {near[0]}?" if near else ", ".join(NAMES))
        )
    if name == "model":
        models = [value] if isinstance(value, str) else value
        if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
            raise sdltx.InvalidRequestError(f"[config] {file}: model is a file or set, or a list of them")
        return [os.path.expanduser(one) for one in models]  # noqa: PTH111 (names of sets are no paths)
    if not isinstance(value, _KINDS[name]) or (isinstance(value, bool) and bool not in _KINDS[name]):
        kinds = " or ".join(kind.__name__ for kind in _KINDS[name])
        raise sdltx.InvalidRequestError(f"[config] {file}: {name} is {value!r}, expected {kinds}")
    return value
