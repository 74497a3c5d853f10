"""Environment variables that models are loaded by: SDLTX_DEVICE and so on, as far as callers say nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .errors import InvalidRequestError

DEFAULTS: dict[str, Any] = {
    "device": "auto",
    "precision": "auto",
    "threads": None,
    "offload": "auto",
    "max_memory": None,
    "max_vram": None,
}
"""Of :func:`sdltx.load`."""
_NUMBERS = {"threads": int, "max_memory": float, "max_vram": float}


def variable(name: str) -> str:
    """Returns the variable of an option."""
    return f"SDLTX_{name.upper()}"


def loaded_with(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of load(): as given, else as the variables say, else by default.

    Raises InvalidRequestError for a variable that is no number where one is needed.
    """
    return {name: _value(name) if given.get(name) is None else given[name] for name in DEFAULTS}


def _value(name: str) -> Any:
    text = os.environ.get(variable(name), "")
    if not text:
        return DEFAULTS[name]
    if name not in _NUMBERS:
        return text
    try:
        return _NUMBERS[name](text)
    except ValueError:
        raise InvalidRequestError(f"[environment] {variable(name)} is {text!r}, which is no number") from None
