"""What a batch remembers in a folder beside its clips, so that the same command goes on where it was."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sdltx
from sdltx.options import ROWS

from .._files import failures_named, is_file, remove_leftovers_of, replacing, sha256_of

_FOLDER = ".sdltx-batch"


class State:
    """The seeds that were drawn, clips that are denoised, and which file is whose. One command at a time has it."""

    def __init__(self, folder: Path) -> None:
        """folder: of the clips. Raises BusyError while another command makes clips in it."""
        self.folder = folder / _FOLDER
        self._file = self.folder / "state.json"
        with failures_named(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("a+")  # as long as this lives
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise sdltx.BusyError(
                    f"[batch] another command is making clips in {folder}; wait for its end"
                ) from None
            self._take_over(folder)
        self._done: dict[str, dict[str, Any]] = {}
        self._seeds: dict[str, int] = {}
        with suppress(OSError, ValueError, AttributeError, RecursionError):  # there is none yet, or none that counts
            told = json.loads(self._file.read_text() if is_file(self._file) else "")
            if isinstance(told.get("done"), dict) and isinstance(told.get("seeds"), dict):
                self._done, self._seeds = told["done"], told["seeds"]

    def _take_over(self, folder: Path) -> None:
        """Removes what the last command has left, if it was killed: it had this lock, so it is not there any more."""
        self._lock.seek(0)
        with suppress(ValueError):
            last = int(self._lock.read(32))
            for one in (folder, self.folder):
                remove_leftovers_of(last, one)
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def is_done(self, name: str, key: str, files: Sequence[Path]) -> bool:
        """Whether the output ``name``, which is these files, is what ``key`` stands for."""
        told = self._done.get(name)
        if not isinstance(told, dict) or told.get("key") != key or not all(file.exists() for file in files):
            return False
        stat = files[0].stat()
        # Another command may have written a file of this name; copies have other times.
        return told.get("size") == stat.st_size and (
            told.get("time") == stat.st_mtime_ns or told.get("sha256") == sha256_of(files[0])
        )

    def frames_of(self, name: str) -> int:
        """Pictures of the output ``name`` when it was made, as far as is known; at least 1."""
        told = self._done.get(name)
        frames = told.get("frames") if isinstance(told, dict) else None
        return frames if type(frames) is int and frames > 0 else 1

    def seed_of(self, key: str) -> int:
        """The seed of a clip that asks for none: the same when the batch goes on."""
        seed = self._seeds.get(key)
        if type(seed) is not int:
            seed = self._seeds[key] = random.SystemRandom().randrange(2**31)
            self._write()
        return seed

    def note_done(self, name: str, key: str, files: Sequence[Path], frames: int) -> None:
        """Remembers that these files are finished."""
        stat = files[0].stat()
        self._done[name] = {
            "key": key,
            "frames": frames,
            "size": stat.st_size,
            "time": stat.st_mtime_ns,
            "sha256": sha256_of(files[0]),
        }
        self._write()

    def _write(self) -> None:
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps({"done": self._done, "seeds": self._seeds}))


def model_stamp(pipe: sdltx.Pipeline) -> list[Any]:
    """Returns what tells models apart: their files, and how they compute."""
    return [*(_stamp(str(path)) for path in pipe.opened_files()), pipe.precision]


def keys_of(request: sdltx.Request, name: str, model: Sequence[Any], written: Sequence[Any]) -> tuple[str, str]:
    """Returns names for a clip that is denoised, and for its file.

    model: from :func:`model_stamp`; written: how the file is written. Tiles count for the file alone.
    """
    told = request.to_dict()
    tiling = told.pop("tiling", None)
    files = [_stamp(path) for path in files_of(request)]
    denoised = _digest([told, files, name, model])
    return denoised, _digest([denoised, tiling, written])


def files_of(request: sdltx.Request) -> list[str]:
    """Returns the files that a request names, pictures last."""
    found: list[str] = []
    for name, value in request.options.items():
        kind = ROWS[name]["kind"]
        if kind == "file":
            found.append(value)
        elif kind in ("files", "loras"):
            found += (one if isinstance(one, str) else one[0] for one in value)
    pictures = (one.image for one in request.conditions)
    return found + [os.fspath(one) for one in pictures if isinstance(one, (str, os.PathLike))]


def _stamp(path: str) -> list[Any]:
    try:
        stat = Path(path).stat()
    except OSError:
        return [Path(path).name]
    return [Path(path).name, stat.st_size, stat.st_mtime_ns]


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
