"""Files that appear complete or not at all: written under a temporary name next to the target, renamed at the end."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from . import _core
from .errors import BackendError, InvalidRequestError

_PIECE = 1 << 20  # bytes that are read at a time


def target_of(path: str | os.PathLike[str]) -> Path:
    """Returns the file that writing to ``path`` writes: links are followed, whether they lead to something or not.

    Raises InvalidRequestError for what is no regular file or is write-protected, for a name that is too long, and for a
    folder that does not exist.
    """
    try:
        target = Path(os.path.realpath(path))
    except ValueError:
        raise InvalidRequestError(f"[output] {os.fspath(path)!r} is no name that a file can have") from None
    try:
        check_name(target)
        mode = target.stat().st_mode if target.exists() else None
    except OSError as error:
        raise InvalidRequestError(f"[output] cannot write to {path}: {error.strerror}; choose another name") from None
    if target.is_symlink():
        raise InvalidRequestError(f"[output] {path} is a link that leads to itself; remove it or choose another name")
    if mode is None:
        return target
    if stat.S_ISDIR(mode):
        raise InvalidRequestError(f"[output] {path} is a folder; add a file name")
    if not stat.S_ISREG(mode):
        raise InvalidRequestError(f"[output] {path} is no regular file; choose another name")
    if not mode & 0o222:  # also for root, who is not stopped by it but meant it
        raise InvalidRequestError(f"[output] {path} is write-protected; make it writable or choose another name")
    return target


def check_name(target: Path) -> None:
    """Raises InvalidRequestError for a name that is longer than the file system of its folder allows."""
    try:
        most = os.pathconf(target.parent, "PC_NAME_MAX")
    except FileNotFoundError:
        raise InvalidRequestError(f"[output] folder {target.parent} does not exist; create it first") from None
    except NotADirectoryError:
        raise InvalidRequestError(f"[output] {target.parent} is not a folder; choose another name") from None
    length = len(os.fsencode(target.name))
    if length > most:
        raise InvalidRequestError(
            f"[output] the file name {target.name[:20]}...{target.suffix} would be {length} bytes long, at most {most} "
            "are possible; choose a shorter one"
        )


def _prefix(process: int) -> str:
    return f".sdltx-{process}-"


def remove_leftovers_of(process: int, folder: Path) -> None:
    """Removes what a process was writing in a folder when it was killed, unless one of this number runs."""
    if process < 1 or (process != os.getpid() and exists(f"/proc/{process}")):
        return
    for file in folder.glob(f"{_prefix(process)}*"):
        if is_folder(file) and not file.is_symlink():
            shutil.rmtree(file, ignore_errors=True)
        else:
            file.unlink(missing_ok=True)


def sha256_of(path: str | os.PathLike[str]) -> str | None:
    """Returns the checksum of a file, None for what is no regular file or cannot be read."""
    if not is_file(path):  # a pipe would have us wait, a device would never end
        return None
    checksum = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(_PIECE):
                checksum.update(piece)
    except OSError:
        return None
    return checksum.hexdigest()


def temporary_beside(target: Path, suffix: str | None = None) -> Path:
    """Creates an empty file in the folder of ``target`` and returns its path.

    suffix: of its name, which encoders look at; None: that of ``target``.

    Raises InvalidRequestError if that folder is missing or not writable.
    """
    temporary = target.with_name(
        f"{_prefix(os.getpid())}{os.urandom(4).hex()}.tmp{target.suffix if suffix is None else suffix}"
    )
    # Guarded first, so that a signal finds it in whatever moment it comes.
    _core.guard_file(str(temporary.absolute()))
    try:
        # Not tempfile: its files are private to the user, an output should follow the umask.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        _core.release_file(str(temporary.absolute()))
        if isinstance(error, FileNotFoundError):
            raise InvalidRequestError(f"[output] folder {target.parent} does not exist; create it first") from None
        raise InvalidRequestError(
            f"[output] cannot write to folder {target.parent}: {error.strerror}; choose another"
        ) from None
    return temporary


def remove_temporary(temporary: Path) -> None:
    """Ends the life of a file of :func:`temporary_beside`, which may have become its target already."""
    with suppress(FileNotFoundError):
        temporary.unlink()
    _core.release_file(str(temporary.absolute()))


def check_writable(target: str | os.PathLike[str]) -> None:
    """Raises InvalidRequestError unless ``target`` can be written."""
    remove_temporary(temporary_beside(target_of(target)))


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path; it becomes ``path`` if the block succeeds and is removed if it does not."""
    target = target_of(path)
    temporary = temporary_beside(target)
    try:
        with failures_named(path):
            yield temporary
            become(temporary, target)
    finally:
        remove_temporary(temporary)


def become(temporary: Path, target: Path) -> None:
    """Gives a complete file its name, so that a power cut leaves the old one or the new one."""
    become_all([(temporary, target)])


def become_all(files: Sequence[tuple[Path, Path]]) -> None:
    """The same for several, in one folder: none gets its name before all are on the disk."""
    for temporary, _ in files:
        _sync(temporary)
    for temporary, target in files:
        temporary.replace(target)
    for folder in {target.parent for _, target in files}:
        with suppress(OSError):  # the files are there and whole
            _sync(folder)


def _sync(path: Path) -> None:
    """Brings a file to the disk. Raises OSError where that fails, but not where the file system does not know how."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


# What pathlib's questions of these names raise for a path that is too long, or below a closed folder, these answer.


def cache_folder() -> Path:
    """Returns the folder of what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdltx"


class Source(io.FileIO):
    """A file that FFmpeg reads.

    A broken one sends it to places that there are not, which is no exception to it. What a disk says is raised at the
    end, as PyAV writes tracebacks of what is raised while it reads.
    """

    _failure: OSError | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Reads, up to the end or to where the disk fails."""
        try:
            return super().read(size) or b""
        except OSError as error:
            self._failure = error
            return b""

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)  # type: ignore[arg-type]
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes there, or returns -1, as FFmpeg wants it."""
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError):
            return -1


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that can be looked at."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file that can be looked at."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder that can be looked at."""
    return os.path.isdir(path)  # noqa: PTH112


@contextmanager
def failures_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an OSError of the block (disk full, folder gone) into a BackendError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise BackendError(f"[output] cannot write {path}: {error.strerror or error}") from error
