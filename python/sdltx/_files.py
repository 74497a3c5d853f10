"""Files that appear complete or not at all: written under a temporary name next to the target, renamed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from . import _core
from .errors import BackendError, InvalidRequestError


def temporary_beside(target: Path) -> Path:
    """Creates an empty file in the folder of ``target``, with its suffix (encoders look at it), and returns its path.

    Raises InvalidRequestError if ``target`` is a folder or its folder is missing or not writable.
    """
    if target.is_dir():
        raise InvalidRequestError(f"[output] {target} is a folder; add a file name")
    temporary = target.with_name(f".{target.stem[:64]}.{os.urandom(4).hex()}.tmp{target.suffix}")
    try:
        # Not tempfile: its files are private to the user, an output should follow the umask.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError:
        raise InvalidRequestError(f"[output] folder {target.parent} does not exist; create it first") from None
    except OSError as error:
        raise InvalidRequestError(
            f"[output] cannot write to folder {target.parent}: {error.strerror}; choose another"
        ) from None
    _core.guard_file(str(temporary.absolute()))
    return temporary


def remove_temporary(temporary: Path) -> None:
    """Ends the life of a file of :func:`temporary_beside`, which may have become its target already."""
    with suppress(FileNotFoundError):
        temporary.unlink()
    _core.release_file(str(temporary.absolute()))


def check_writable(target: str | os.PathLike[str]) -> None:
    """Raises InvalidRequestError unless a file can be created at ``target``."""
    remove_temporary(temporary_beside(Path(target)))


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path; it becomes ``target`` if the block succeeds and is removed if it does not."""
    path = Path(target)
    temporary = temporary_beside(path)
    try:
        with failures_named(path):
            yield temporary
            temporary.replace(path)
    finally:
        remove_temporary(temporary)


@contextmanager
def failures_named(target: Path) -> Iterator[None]:
    """Turns an OSError of the block (disk full, folder gone) into a BackendError that names ``target``."""
    try:
        yield
    except OSError as error:
        raise BackendError(f"[output] cannot write {target}: {error.strerror or error}") from error
