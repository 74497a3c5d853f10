"""What can go wrong, as exception classes. A message is one line: where, expected, got, what to do.

The classes are made by the compiled core, so an error raised in C++ and one raised here are the same type.
"""

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

for _error, _doc in _DOCS.items():
    _error.__doc__ = _doc
    _error.__module__ = "sdltx"  # as users import and catch them; tracebacks and pickles show this name
