"""Options that come from elsewhere than the command line: environment variables and the user's config file.

Only options of which no clip remembers anything: where models lie and run, and how files are written. On the command
line they count before variables, and these before the file.
"""

from __future__ import annotations

import argparse
import difflib
import os
from pathlib import Path
from typing import Any

import sdltx

from .. import environment
from .._files import is_file

NAMES = (*environment.DEFAULTS, "model", "metadata", "wav_format", "no_cache", "overwrite")
"""What the file may hold."""
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


def path() -> Path | None:
    """Returns the file: SDLTX_CONFIG, or config.toml in the user's config folder; None if SDLTX_CONFIG is empty."""
    named = os.environ.get("SDLTX_CONFIG")
    if named is not None:
        return Path(named).expanduser() if named else None
    import platformdirs

    return platformdirs.user_config_path("sdltx") / "config.toml"


def apply(args: argparse.Namespace) -> None:
    """Fills in what the command line has left open. Raises InvalidRequestError for a file that makes no sense."""
    file = path()
    if file is None or not is_file(file):
        if os.environ.get("SDLTX_CONFIG"):
            raise sdltx.InvalidRequestError(f"[config] there is no file {file}; see SDLTX_CONFIG")
        return
    for name, value in _read(file).items():
        if not hasattr(args, name) or _is_given(args, name):
            continue
        if name in environment.DEFAULTS and os.environ.get(environment.variable(name)):
            continue
        setattr(args, name, value)


def _is_given(args: argparse.Namespace, name: str) -> bool:
    """Whether the command line says something of an option."""
    value, default = getattr(args, name), args.parser.get_default(name)
    return bool(value != default)


def _read(file: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ModuleNotFoundError:  # before Python 3.11
        import tomli as tomllib
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise sdltx.InvalidRequestError(f"[config] {file}: {error}") from None
    return {name: _checked(file, name, value) for name, value in values.items()}


def _checked(file: Path, name: str, value: Any) -> Any:
    if name not in NAMES:
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
