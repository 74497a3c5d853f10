"""The videos of a server: a row each in SQLite, and a folder each for files. What is in neither did not happen."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._files import failures_named
from ..errors import BackendError, BusyError

QUEUED, IN_PROGRESS, COMPLETED, FAILED = "queued", "in_progress", "completed", "failed"
OVER = (COMPLETED, FAILED)
CANCELLED = "cancelled"
"""The code of the error of a video that was stopped; also a wish."""
DELETED = "deleted"
"""The wish for a video that is to go when the engine has let go of it."""
MOST_ATTEMPTS = 3
"""How often a video is begun whose server ends meanwhile."""
_VERSION = 1
_BUSY = 1.0  # seconds to wait for others who use the database, in which nothing is answered
_ID = re.compile(r"video_[0-9a-f]{32}")
_TABLES = """
CREATE TABLE videos (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    completed REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    request TEXT NOT NULL,
    plan TEXT NOT NULL,
    file TEXT NOT NULL,
    error TEXT
);
CREATE INDEX videos_by_status ON videos (status, number);
CREATE TABLE paces (step TEXT PRIMARY KEY, operations REAL NOT NULL, seconds REAL NOT NULL);
"""
_MORE_TABLES = """
CREATE TABLE IF NOT EXISTS gone (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS wishes (id TEXT PRIMARY KEY, wish TEXT NOT NULL);
"""
_MOST_GONE = 10_000  # deleted videos whose place in lists is known: who deletes what is listed asks what comes after it
_FORGETTING = 0.7  # of paces, with each video: machines and models change


@dataclass(frozen=True)
class Video:
    """A row."""

    number: int
    id: str
    status: str
    created: float
    started: float | None
    completed: float | None
    attempts: int
    request: dict[str, Any]
    """As :meth:`sdltx.Request.from_dict` takes it; files by their names in the folder of the video."""
    plan: dict[str, Any]
    """width, height, num_frames, frame_rate, seed and so on, as they were resolved; also "estimate"."""
    file: str
    """Name of the result."""
    error: dict[str, str] | None
    """code and message, of one that failed."""


def new_id() -> str:
    """Returns a name that nobody guesses."""
    return f"video_{secrets.token_hex(16)}"


def is_id(text: str) -> bool:
    """Whether it can be the name of a video."""
    return _ID.fullmatch(text) is not None


class Store:
    """The videos. One server at a time has a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises BusyError while another server has it, BackendError if it cannot be written or is another's."""
        self.folder = folder
        with failures_named(folder):
            (folder / "videos").mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("a+")  # as long as this lives
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"[serve] another server has {folder}; wait for its end, or give --data") from None
        self._path = folder / "videos.sqlite"
        with self._named():
            self._db = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # what was promised survives a power cut
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
            elif version != _VERSION:
                raise BackendError(f"[serve] {self._path} is of another version of sdltx; give another folder (--data)")
            self._db.executescript(_MORE_TABLES)
        self._recover()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BackendError(f"[serve] the database of videos fails: {error}") from error

    def close(self) -> None:
        """Gives the folder back."""
        self._db.close()
        self._lock.close()

    def folder_of(self, video: str) -> Path:
        """Returns where the files of a video lie."""
        return self.folder / "videos" / video

    def _recover(self) -> None:
        """Goes on after a server that ended in whatever moment."""
        for id, wish in self.wishes().items():
            if wish == DELETED:
                self.delete(id)
            elif (wished := self.get(id)) is not None and wished.status not in OVER:
                self.note_failed(id, CANCELLED, "it was cancelled")
            else:  # it was over before it could be forgotten
                self._forget_cancelled(id)
        for video in self.unfinished():
            if video.status != IN_PROGRESS:
                continue
            if (self.folder_of(video.id) / video.file).exists():  # which has its name when it is complete
                self.note_completed(video.id)
            elif video.attempts >= MOST_ATTEMPTS:
                self.note_failed(video.id, "server_ended", f"the server ended {MOST_ATTEMPTS} times while it was made")
            else:
                self.requeue(video.id)
        with self._named():
            known = {row["id"] for row in self._db.execute("SELECT id FROM videos")}
        for folder in (self.folder / "videos").iterdir():
            if folder.name not in known:  # deleted, or not taken yet
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for leftover in folder.glob(".sdltx-*"):
                with suppress(OSError):
                    leftover.unlink()

    def add(self, id: str, request: Mapping[str, Any], plan: Mapping[str, Any], file: str) -> Video:
        """Takes a video into the queue; its folder is there already."""
        with self._named():
            self._db.execute(
                "INSERT INTO videos (id, status, created, request, plan, file) VALUES (?, ?, ?, ?, ?, ?)",
                (id, QUEUED, time.time(), json.dumps(request), json.dumps(plan), file),
            )
        video = self.get(id)
        assert video is not None
        return video

    def get(self, id: str) -> Video | None:
        """Returns one, None if there is none."""
        with self._named():
            row = self._db.execute("SELECT * FROM videos WHERE id = ?", (id,)).fetchone()
        return None if row is None else _video(row)

    def unfinished(self) -> list[Video]:
        """Those that wait or are made, the oldest first."""
        with self._named():
            rows = self._db.execute(
                "SELECT * FROM videos WHERE status IN (?, ?) ORDER BY number", (QUEUED, IN_PROGRESS)
            )
            return [_video(row) for row in rows]

    def order(self) -> list[tuple[str, str]]:
        """Ids and statuses of the same."""
        with self._named():
            rows = self._db.execute(
                "SELECT id, status FROM videos WHERE status IN (?, ?) ORDER BY number", (QUEUED, IN_PROGRESS)
            )
            return [(row["id"], row["status"]) for row in rows]

    def count_unfinished(self) -> int:
        """How many wait or are made."""
        return sum(count for status, count in self.counts().items() if status not in OVER)

    def counts(self) -> dict[str, int]:
        """How many there are of each status."""
        with self._named():
            rows = self._db.execute("SELECT status, COUNT(*) AS count FROM videos GROUP BY status")
            return {row["status"]: row["count"] for row in rows}

    def page(
        self, *, after: str | None, limit: int, newest_first: bool, waiting: bool = False
    ) -> tuple[list[Video], bool] | None:
        """Returns videos that follow one, and whether there are more; None if that one was never there.

        waiting: only those that wait or are made.
        """
        order, sign = ("DESC", "<") if newest_first else ("ASC", ">")
        where, given = "WHERE id NOT IN (SELECT id FROM wishes WHERE wish = ?)", [DELETED]
        if waiting:
            where, given = f"{where} AND status IN (?, ?)", [*given, QUEUED, IN_PROGRESS]
        if after is not None:
            with self._named():
                last = self._db.execute(
                    "SELECT number FROM videos WHERE id = ? UNION SELECT number FROM gone WHERE id = ?", (after, after)
                ).fetchone()
            if last is None:
                return None
            where, given = f"{where} AND number {sign} ?", [*given, last["number"]]
        with self._named():
            rows = self._db.execute(
                f"SELECT * FROM videos {where} ORDER BY number {order} LIMIT ?", [*given, limit + 1]
            )
            found = [_video(row) for row in rows]
        return found[:limit], len(found) > limit

    def older_than(self, when: float) -> list[str]:
        """Those that were over before this time."""
        with self._named():
            rows = self._db.execute("SELECT id FROM videos WHERE completed < ?", (when,))
            return [row["id"] for row in rows]

    def note_started(self, id: str) -> None:
        """It is being made."""
        self._set(id, "status = ?, started = ?, attempts = attempts + 1", IN_PROGRESS, time.time())

    def note_attempt(self, id: str) -> None:
        """It was in an engine that crashed, perhaps through it."""
        self._set(id, "attempts = attempts + 1")

    def requeue(self, id: str, *, counts: bool = True) -> None:
        """It waits again. counts: that it was begun."""
        self._set(id, "status = ?, started = NULL, attempts = attempts - ?", QUEUED, 0 if counts else 1)

    def note_plan(self, id: str, plan: Mapping[str, Any]) -> None:
        """What it is is known better."""
        self._set(id, "plan = ?", json.dumps(plan))

    def note_completed(self, id: str) -> None:
        """Its file is there; what it was made from and in between is not needed."""
        self._set(id, "status = ?, completed = ?, error = NULL", COMPLETED, time.time())
        self._forget_cancelled(id)
        (self.folder_of(id) / LATENTS).unlink(missing_ok=True)

    def note_failed(self, id: str, code: str, message: str) -> None:
        """It will not be made."""
        error = json.dumps({"code": code, "message": message})
        self._set(id, "status = ?, completed = ?, error = ?", FAILED, time.time(), error)
        self._forget_cancelled(id)
        (self.folder_of(id) / LATENTS).unlink(missing_ok=True)

    def delete(self, id: str) -> None:
        """Forgets it and its files."""
        with self._named():
            self._db.execute("INSERT OR IGNORE INTO gone SELECT number, id FROM videos WHERE id = ?", (id,))
            self._db.execute("DELETE FROM videos WHERE id = ?", (id,))
            self._db.execute("DELETE FROM wishes WHERE id = ?", (id,))
            self._db.execute("DELETE FROM gone WHERE number <= (SELECT MAX(number) FROM gone) - ?", (_MOST_GONE,))
        shutil.rmtree(self.folder_of(id), ignore_errors=True)

    def wish(self, id: str, what: str) -> None:
        """Writes down what somebody was told that it will happen, before the engine lets it: CANCELLED or DELETED."""
        with self._named():
            self._db.execute(
                "INSERT INTO wishes (id, wish) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET wish = excluded.wish",
                (id, what),
            )

    def wishes(self) -> dict[str, str]:
        """Those that did not happen yet, by video."""
        with self._named():
            return {row["id"]: row["wish"] for row in self._db.execute("SELECT * FROM wishes")}

    def _forget_cancelled(self, id: str) -> None:
        """It is over; what is to be deleted still is."""
        with self._named():
            self._db.execute("DELETE FROM wishes WHERE id = ? AND wish = ?", (id, CANCELLED))

    def _set(self, id: str, change: str, *values: Any) -> None:
        with self._named():
            self._db.execute(f"UPDATE videos SET {change} WHERE id = ?", (*values, id))

    def note_pace(self, step: str, operations: float, seconds: float) -> None:
        """Remembers how long a step took."""
        with self._named():
            self._db.execute(
                "INSERT INTO paces (step, operations, seconds) VALUES (?, ?, ?) ON CONFLICT (step) DO UPDATE SET "
                f"operations = operations * {_FORGETTING} + excluded.operations, "
                f"seconds = seconds * {_FORGETTING} + excluded.seconds",
                (step, operations, seconds),
            )

    def paces(self) -> dict[str, float]:
        """Seconds of an operation, by step."""
        with self._named():
            rows = self._db.execute("SELECT * FROM paces WHERE operations > 0")
            return {row["step"]: row["seconds"] / row["operations"] for row in rows}

    def forget_paces_of_others(self, model: str) -> None:
        """Paces are of a model on a device: of another they tell nothing."""
        told = self.folder / "paces-of"
        with failures_named(told):
            if not told.exists() or told.read_text(errors="replace") != model:
                with self._named():
                    self._db.execute("DELETE FROM paces")
                told.write_text(model)


LATENTS = "latents.safetensors"
"""The denoised video, until it is decoded."""


def _video(row: sqlite3.Row) -> Video:
    told = dict(row)
    error = told.pop("error")
    request, plan = json.loads(told.pop("request")), json.loads(told.pop("plan"))
    return Video(**told, request=request, plan=plan, error=None if error is None else json.loads(error))


def free_bytes(folder: Path) -> int:
    """Bytes that can be written there."""
    told = os.statvfs(folder)
    return told.f_bavail * told.f_frsize
