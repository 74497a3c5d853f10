"""What callers pass, as the type that the core takes; anything else is one InvalidRequestError that says what is."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any, NoReturn, SupportsFloat, TypeVar

from . import _core
from .errors import InvalidRequestError

_INT_MAX = 2**63 - 1
_BITS_TO_SHOW = 256  # Python refuses to write numbers of thousands of digits
_T = TypeVar("_T")


def integer(where: str, name: str, value: Any) -> int | None:
    """As :func:`whole`; None stays None."""
    return None if value is None else whole(where, name, value)


def whole(where: str, name: str, value: Any) -> int:
    """Returns a whole number, also one of NumPy's. The core checks the range."""
    try:
        if isinstance(value, bool):  # which Python takes for a number
            raise TypeError
        number = operator.index(value)
    except TypeError:
        refuse(where, name, "a whole number", value)
    if not -_INT_MAX <= number <= _INT_MAX:
        told = number if number.bit_length() < _BITS_TO_SHOW else f"of {number.bit_length()} bits"
        raise InvalidRequestError(f"[{where}] {name} {told} is out of range; use at most {_INT_MAX}")
    return number


def number(where: str, name: str, value: Any) -> float | None:
    """As :func:`real`; None stays None."""
    return None if value is None else real(where, name, value)


def real(where: str, name: str, value: Any) -> float:
    """Returns a real number, also a Fraction or one of NumPy's. The core checks the range."""
    if type(value) is float:  # without the question below, which takes long
        return value
    if (
        isinstance(value, (str, bytes, bool))
        or not isinstance(value, SupportsFloat)
        or getattr(value, "shape", ()) != ()
    ):
        refuse(where, name, "a number", value)
    try:
        return float(value)
    except OverflowError:
        return math.inf  # the core says what is possible


def numbers(where: str, name: str, values: Any) -> list[float] | None:
    """Returns a list of real numbers; None stays None."""
    if values is None:
        return None
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        refuse(where, name, "a list of numbers", values)
    return [real(where, name, value) for value in values]


def names(where: str, name: str, values: Any) -> list[str]:
    """Returns a list of names."""
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        refuse(where, name, "a name or a list of names", values)
    return [unicode(where, name, value) for value in values]


def unicode(where: str, name: str, value: str) -> str:
    """Returns text that can be written as UTF-8: what the core takes. Names of files need not be such."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"[{where}] the {name} is not valid Unicode at character {error.start}") from None
    return value


def callback(where: str, name: str, value: Any) -> Any:
    """Returns ``value`` if it can be called, or None."""
    if value is not None and not callable(value):
        refuse(where, name, "a function", value)
    return value


def threads(where: str, value: Any) -> int:
    """Returns a number of CPU threads; 0 for None, which stands for one per core."""
    if value is None:
        return 0
    number = whole(where, "threads", value)
    if not 1 <= number <= _core.max_threads:
        raise InvalidRequestError(f"[threads] {number} is not between 1 and {_core.max_threads}")
    return number


def raw(path: str) -> bytes:
    """Returns a path as the core takes it: names of files need not be text."""
    return os.fsencode(path)


def path(where: str, value: Any) -> str:
    """Returns a path as text."""
    if not isinstance(value, (str, os.PathLike)):
        refuse(where, "path", "text or a Path, and each file as an argument of its own", value)
    text = os.fsdecode(value)
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise InvalidRequestError(f"[{where}] {text!r} is no name that a file can have")
    return text


def text(where: str, name: str, value: Any) -> str:
    """Returns text that can be written as UTF-8."""
    if not isinstance(value, str):
        refuse(where, name, "text", value)
    size = len(unicode(where, name, value).encode())
    if size > _core.max_prompt_bytes:
        raise InvalidRequestError(
            f"[{where}] the {name} has {size} bytes, at most {_core.max_prompt_bytes} are possible; use a shorter one"
        )
    return value


def instance(where: str, name: str, value: Any, kind: type[_T], origin: str) -> _T:
    """Returns ``value`` if it is a ``kind``; ``origin`` says where one comes from."""
    if not isinstance(value, kind):
        refuse(where, name, f"{kind.__name__} ({origin})", value)
    return value


def refuse(where: str, name: str, expected: str, got: Any) -> NoReturn:
    """Raises the error for a value of the wrong type."""
    shown = repr(got) if isinstance(got, (str, bytes, int, float)) else ""
    if len(shown) > 40:
        shown = f"{shown[:37]}..."
    kind = "None" if got is None else f"{type(got).__name__} {shown}".rstrip()
    raise InvalidRequestError(f"[{where}] {name}: expected {expected}, got {kind}")
