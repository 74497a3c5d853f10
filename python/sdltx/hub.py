"""Downloads the files of a model from the Hugging Face Hub, when somebody asks for it.

The addresses, tokens, mirrors (``HF_ENDPOINT``) and proxies are those of huggingface-hub (extra ``[hub]``). The bytes
are fetched here, because a download of 46 GB must go on where it was after a power cut, and its checksum be right.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from . import _arguments, library
from ._files import become, exists, failures_named, is_file
from .errors import BackendError, BusyError, InvalidRequestError, ModelFileError, SdltxError
from .model_sets import PublishedFile, require_set
from .progress import Callback, Progress, heard

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_KINDS = (".safetensors", ".gguf", ".json", ".model")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_PIECE = 1 << 20  # bytes that are read at a time
_ATTEMPTS = 5  # without a byte
_PAUSE = 1.0  # seconds before another one, doubled each time
_TIMEOUT = 30.0  # seconds without a byte
_PARTIAL, _SERVER_ERRORS = 206, 500  # of HTTP
_MARGIN = 1 << 28  # bytes of the disk that stay free
_GIT, _SHA256 = 40, 64  # digits of a checksum


@dataclass(frozen=True)
class Download:
    """A file that is wanted, as the hub tells it."""

    repository: str
    path: str
    """In the repository."""
    target: Path
    """Where it goes."""
    bytes: int
    checksum: str
    """SHA-256, or what git calls a file of this content."""
    here: Path | None
    """Where it lies already, or None."""
    licence: str
    page: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.target.name

    @property
    def part(self) -> Path:
        """Where it lies while it comes; of another version of the file it is another one."""
        return self.target.with_name(f".{self.target.name}.{self.checksum[:16]}.part")

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        if self.here is not None:
            return 0
        return max(0, self.bytes - (self.part.stat().st_size if is_file(self.part) else 0))


@dataclass(frozen=True)
class Plan:
    """What a download comes to, before it begins."""

    name: str
    folder: Path
    files: tuple[Download, ...]

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return sum(file.left for file in self.files)

    @property
    def free(self) -> int:
        """Bytes that are free on the disk that it goes to."""
        folder = self.folder
        while not exists(folder) and folder != folder.parent:
            folder = folder.parent
        return shutil.disk_usage(folder).free


def plan(name: str, *, options: Sequence[str] = (), folder: str | os.PathLike[str] | None = None) -> Plan:
    """Returns what :func:`pull` would download. Asks the hub for sizes and checksums, and whether files may be had.

    Raises what :func:`pull` raises before it downloads.
    """
    wanted = require_set("pull", _arguments.text("pull", "name", name))
    names = [options] if isinstance(options, str) else options
    chosen = wanted.chosen(tuple(_arguments.names("pull", "options", names)))
    if folder is not None and not os.fspath(_arguments.path("pull", folder)):
        raise InvalidRequestError("[pull] the folder has an empty name")
    to = library.own_folder() if folder is None else library.folder_named("pull", _arguments.path("pull", folder))
    places = library.places()
    if to not in [place.folder for place in places]:
        places = [library.Place(to, "own folder"), *places]
    index = library.Index(places)
    api = _api()
    listings: dict[str, Mapping[str, Any]] = {}
    files: list[Download] = []
    for file in chosen:
        if file.repository not in listings:
            with _explained(file):
                if file.gated:
                    api.auth_check(file.repository)
                listings[file.repository] = _listing(api, file.repository)
        files += _downloads(file, listings[file.repository], to, index)
    return Plan(wanted.name, to, tuple(files))


def pull(
    name: str,
    *,
    options: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    verify: bool = False,
    progress: Progress = None,
) -> list[Path]:
    """Downloads the files of a model that are not here yet, and returns where all of them are.

    name: of a set, such as "ltx-2.3-distilled:q4_k_m"; ``sdltx-cli models --known`` lists them. Afterwards
        ``sdltx.load(name)`` opens it.
    options: of it, such as "upscaler".
    folder: where to; None: the first folder of ``SDLTX_MODELS``, or one in the user's data folder.
    verify: also compute the checksums of files that are here already, and download those anew that are broken.
    progress: None: bars on a terminal and in a notebook; True: bars, False: none; or a function that is called with
        ("download", bytes, of all) and ("checksum", bytes, of all), and stops it by an exception. A download that was
        stopped goes on where it was.

    Nothing else in sdltx uses the network. Raises InvalidRequestError for a set that there is not, BackendError without
    huggingface-hub, network, access or room on the disk, ModelFileError for a file whose checksum is wrong, BusyError
    while another process downloads the same.
    """
    return fetch(plan(name, options=options, folder=folder), verify=verify, progress=progress)


def fetch(planned: Plan, *, verify: bool = False, progress: Progress = None) -> list[Path]:
    """Downloads what :func:`plan` has returned; see :func:`pull`."""
    with heard("pull", progress) as callback:
        return _fetch(planned, verify, callback or (lambda phase, done, total: None))


def _fetch(planned: Plan, verify: bool, tell: Callback) -> list[Path]:
    files = list(planned.files)
    if verify:
        files = [_verified(file, tell) for file in files]
    total = sum(file.left for file in files)
    free = planned.free
    if total and total + _MARGIN > free:
        raise BackendError(
            f"[pull] {planned.name} needs {total / 1e9:.1f} GB more and {planned.folder} has {free / 1e9:.1f} GB free; "
            "make room, or choose another folder with --to or SDLTX_MODELS"
        )
    done = 0

    def more(count: int) -> None:
        nonlocal done
        done += count
        tell("download", done, total)

    if total:
        tell("download", 0, total)
    for file in files:
        if file.here is None:
            _fetch_one(file, more)
        elif file.target.parent.name == library.EXTRAS and not exists(file.target):
            with failures_named(file.target):  # a set has it only there
                file.target.parent.mkdir(parents=True, exist_ok=True)
                file.target.symlink_to(file.here)
    return [file.here or file.target for file in files]


def _api() -> HfApi:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise BackendError(
            "[pull] downloading needs huggingface-hub, which is not installed; pip install 'sdltx[hub]'"
        ) from None
    from ._core import __version__

    return HfApi(library_name="sdltx", library_version=__version__)


def _listing(api: HfApi, repository: str) -> dict[str, Any]:
    """The files of a repository, by path."""
    return {entry.path: entry for entry in api.list_repo_tree(repository, recursive=True) if hasattr(entry, "size")}


def _downloads(file: PublishedFile, listing: Mapping[str, Any], to: Path, index: library.Index) -> Iterator[Download]:
    folder = to.joinpath(*map(_safe, file.repository.split("/")))
    if file.option:
        folder /= library.EXTRAS
    if file.path and file.path not in listing:
        raise ModelFileError(
            f"[pull] {file.repository} does not have {file.path} any more; see {file.page}, and report it please"
        )
    paths = [file.path] if file.path else _of_folder(listing)
    complete = None if file.path else index.find(file)
    for path in paths:
        entry = listing[path]
        checksum = entry.lfs.sha256 if entry.lfs else entry.blob_id
        if not re.fullmatch(f"[0-9a-f]{{{_GIT}}}|[0-9a-f]{{{_SHA256}}}", checksum):
            raise BackendError(f"[pull] the hub's checksum of {file.repository}/{path} is none: {checksum!r}")
        target = folder / _safe(PurePosixPath(path).name)
        if target.is_dir():
            raise InvalidRequestError(f"[pull] {target} is a folder, where the file is to be; move it away")
        here = _found(file, entry.size, target, index) if file.path else None
        if complete is not None and _has_size(complete / target.name, entry.size):
            here = complete / target.name
        if here is None and _has_size(target, entry.size):
            here = target
        yield Download(file.repository, path, target, entry.size, checksum, here, file.licence, file.page)


def _found(file: PublishedFile, size: int, target: Path, index: library.Index) -> Path | None:
    """Where a file lies already: the one that its set is loaded with, which is the first of its name."""
    first = index.find(file)
    if first is None or first == target:
        return None
    if _has_size(first, size):
        return first
    order = [place.folder for place in index.places]
    before = [folder for folder in order if folder in first.parents]
    if before and order.index(before[0]) < order.index(next(folder for folder in order if folder in target.parents)):
        raise ModelFileError(
            f"[pull] {first} has another size than {file.page} tells ({size} bytes), and would be taken; move it away"
        )
    return None


def _of_folder(listing: Mapping[str, Any]) -> list[str]:
    """What a text encoder's repository has for us: weights, configs and tokenizer, of its outermost folder."""
    return sorted(path for path in listing if path.endswith(_KINDS) and _is_safe(path))


def _has_size(path: Path, size: int) -> bool:
    return is_file(path) and path.stat().st_size == size


def _safe(name: str) -> str:
    """A name as it is, if a file can have it without harm."""
    if not _is_safe(name):
        raise ModelFileError(f"[pull] the hub tells of a file named {name!r}, which is not taken")
    return name


def _is_safe(name: str) -> bool:
    return bool(_SAFE_NAME.fullmatch(name)) and ".." not in name


def _verified(file: Download, tell: Callback) -> Download:
    """The same, as not here if what is here is broken."""
    if file.here is None:
        return file
    with file.here.open("rb") as stream:
        checksum = _new_checksum(file)
        done = 0
        for piece in _pieces(stream):
            checksum.update(piece)
            done += len(piece)
            tell("checksum", done, file.bytes)
    if checksum.hexdigest() == file.checksum:
        return file
    return Download(**{**vars(file), "here": None})


def _new_checksum(file: Download) -> Any:
    if len(file.checksum) == _SHA256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.bytes)  # git's


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_PIECE):
        yield piece


def _fetch_one(file: Download, more: Callable[[int], None]) -> None:
    """Downloads a file beside its target, which it becomes when it is complete and its checksum right."""
    with failures_named(file.target):
        file.target.parent.mkdir(parents=True, exist_ok=True)
        stream = file.part.open("a+b")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"[pull] another process downloads {file.target}; wait for it") from None
        checksum = _new_checksum(file)
        with failures_named(file.target):
            if stream.tell() > file.bytes:
                stream.truncate(0)
            stream.seek(0)
            for piece in _pieces(stream):
                checksum.update(piece)
        _receive(file, stream, checksum, more)
        if checksum.hexdigest() != file.checksum:
            file.part.unlink()
            raise ModelFileError(
                f"[pull] the checksum of {file.name} is {checksum.hexdigest()}, and {file.page} tells {file.checksum}; "
                "what came is removed, try again"
            )
        with failures_named(file.target):
            become(file.part, file.target)
            for old in file.target.parent.glob(f".{file.target.name}.*.part"):  # of other versions
                old.unlink()


def _receive(file: Download, stream: BinaryIO, checksum: Any, more: Callable[[int], None]) -> None:
    """Appends what of a file is missing; connections that end are opened anew."""
    failures = 0
    while (offset := stream.tell()) < file.bytes:
        try:
            for piece in _stream(file, offset):
                with failures_named(file.target):
                    stream.write(piece)
                checksum.update(piece)
                more(len(piece))
                failures = 0
        except BackendError as error:
            if not isinstance(error, _Interrupted) or (failures := failures + 1) >= _ATTEMPTS:
                raise
        with failures_named(file.target):
            stream.flush()
        if stream.tell() < file.bytes:
            time.sleep(_PAUSE * 2**failures / 2)


class _Interrupted(BackendError):
    """A connection that ended early; another one may do."""


def _stream(file: Download, offset: int) -> Iterator[bytes]:
    """Bytes of a file from ``offset`` on, no more than it has."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    headers = {**build_hf_headers(library_name="sdltx"), "Range": f"bytes={offset}-", "Accept-Encoding": "identity"}
    with (
        _explained(file),
        # Their address changes; without the token, which goes to the hub alone.
        get_session().stream(
            "GET",
            hf_hub_url(file.repository, file.path),
            headers=headers,
            follow_redirects=True,
            timeout=_TIMEOUT,
        ) as response,
    ):
        hf_raise_for_status(response)
        skip = 0 if response.status_code == _PARTIAL else offset  # a server that knows no ranges
        left = file.bytes - offset
        for piece in response.iter_bytes():
            if skip:
                skip, piece = max(0, skip - len(piece)), piece[skip:]
            if not piece:
                continue
            if len(piece) > left:
                raise ModelFileError(f"[pull] {file.name} is longer than {file.page} tells; try again later")
            left -= len(piece)
            yield piece


@contextmanager
def _explained(file: PublishedFile | Download) -> Iterator[None]:
    """Turns what huggingface-hub raises into errors that say what to do."""
    from huggingface_hub import errors

    try:
        yield
    except (SdltxError, GeneratorExit):
        raise
    except errors.GatedRepoError:
        raise BackendError(
            f"[pull] the publisher of {file.repository} wants the licence accepted first: log in at {file.page}, "
            "accept it, make a token at https://huggingface.co/settings/tokens, and give it with `hf auth login` or "
            "HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise BackendError(
            f"[pull] {file.repository} is not there, or needs a token: see {file.page}; `hf auth login` or HF_TOKEN "
            "gives one"
        ) from None
    except Exception as error:
        raise _of_network(file, error) from None


def _of_network(file: PublishedFile | Download, error: Exception) -> BackendError:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is not None and status < _SERVER_ERRORS:
        return BackendError(f"[pull] the hub refuses {file.repository}: {_first_line(error)}")
    where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if type(error).__name__ == "OfflineModeIsEnabled":
        return BackendError("[pull] HF_HUB_OFFLINE is set, so nothing can be downloaded; unset it")
    return _Interrupted(
        f"[pull] no connection to {where} that lasts: {_first_line(error)}; what has come is kept, so the same command "
        "goes on from there; HF_ENDPOINT names a mirror"
    )


def _first_line(error: Exception) -> str:
    """What went wrong, without the address: those of contents are signed."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
