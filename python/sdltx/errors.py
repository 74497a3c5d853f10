"""What can go wrong, as exception classes. A message is one line: where, expected, got, what to do.

The classes are made by the compiled core, so an error raised in C++ and one raised here are the same type.
"""

import unicodedata

from ._core import (
    BackendError,
    BusyError,
    Cancelled,
    InvalidRequestError,
    ModelFileError,
    ModelMismatchError,
    OutOfMemoryError,
    SdltxError,
)

__all__ = [
    "BackendError",
    "BusyError",
    "Cancelled",
    "InvalidRequestError",
    "ModelFileError",
    "ModelMismatchError",
    "OutOfMemoryError",
    "SdltxError",
]

_DOCS: dict[type[SdltxError], str] = {
    SdltxError: "Base class of every error that sdltx raises on purpose.",
    ModelFileError: "A file is missing, truncated, or not of the kind it should be.",
    ModelMismatchError: "The files are readable, but together they do not make up the wanted model.",
    OutOfMemoryError: "Host or device memory does not suffice. Also a MemoryError.",
    InvalidRequestError: "An argument is outside its range, or an output cannot be written. Also a ValueError.",
    Cancelled: "The run was stopped. Raise it in a progress callback to stop one.",
    BusyError: "Another thread is using the pipeline; wait for it, or load a pipeline of your own.",
    BackendError: "A device, an encoder or the file system failed or does not exist.",
}

_LONGEST, _LONGEST_REASON = 4000, 200
_BREAKS = ("Cc", "Zl", "Zp")  # categories of characters that end a line, or tell a terminal what to do


def _one_line(error: SdltxError) -> str:
    """The message as the core has its own: on one line, whatever text is in it, and not without end."""
    text = Exception.__str__(error)
    line = "".join(
        ascii(character)[1:-1] if unicodedata.category(character) in _BREAKS else character
        for character in text[: _LONGEST + 1]
    )
    return line if len(text) <= _LONGEST else line + "..."


def shortened(error: BaseException) -> str:
    """Returns what a library says of a file in one line that people read: texts of the file may be in it."""
    line = " ".join(str(error).split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + "..."


SdltxError.__str__ = _one_line  # type: ignore[method-assign, assignment]
for _error, _doc in _DOCS.items():
    _error.__doc__ = _doc
    _error.__module__ = "sdltx"  # as users import and catch them; tracebacks and pickles show this name
