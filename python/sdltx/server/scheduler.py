"""Which video is made when: takes them from the store, hands them to the engine, and notes what becomes of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequestError, SdltxError
from .catalogue import Catalogue
from .engine_process import EngineProcess
from .hub import Hub
from .metrics import Metrics
from .settings import Settings
from .store import CANCELLED, DELETED, IN_PROGRESS, MOST_ATTEMPTS, OVER, QUEUED, Store, Video

_logger = logging.getLogger("sdltx.server")
_PATIENCE = 5.0  # seconds for an engine to stop a video, before it is ended
_LOOK = 0.5  # seconds between two looks at what is to be done
_LONG_SILENCE, _LONGEST_SILENCE = 15.0, 120.0  # seconds without a word of an engine: it is not well; it hangs
_SWEEP = 600.0  # seconds between two looks for videos that are too old
# What progress calls a part, and what an estimate calls it.
_STEPS = {
    "encode": "encode prompts",
    "denoise": "denoise",
    "upscale": "upscale",
    "decode": "decode pictures",
    "sound": "decode sound",
}


@dataclass
class Live:
    """How far a video is that is being made."""

    phase: str = ""
    done: int = 0
    total: int = 0
    fraction: float = 0.0
    left: float | None = None
    """Seconds, if known."""
    preview: int = 0
    """After how many steps its picture was made; 0: there is none yet."""


class Scheduler:
    """Makes the videos of a store, the oldest first."""

    def __init__(self, settings: Settings, store: Store, catalogue: Catalogue, metrics: Metrics) -> None:
        self.settings, self.store, self.catalogue, self.metrics = settings, store, catalogue, metrics
        self.hub = Hub()
        self.live: dict[str, Live] = {}
        self.engine = EngineProcess(settings, self._hear, self._hear_of_crash)
        self._unheard: deque[dict[str, Any]] = deque()  # messages that could not be written down yet
        self._busy = False
        self._group: list[str] = []  # with the engine, and not over
        self._started: str | None = None
        self._cancelling: dict[str, float] = {}
        self._deleting: set[str] = set()
        self._positions: dict[str, int] | None = None  # in the queue; None: to be counted
        self._something = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_behind = False
        """Whether the database does not take what happened."""

    async def start(self) -> None:
        """Starts the engine and goes on with what waits. Raises what loading the model raises."""
        await self.engine.start()
        self.store.forget_paces_of_others(f"{self.engine.model['files']} {self.engine.model['device']}")
        self.catalogue.add(self.engine.model.pop("upscalers"))
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._watch())]
        self._something.set()

    async def stop(self) -> None:
        """Ends the engine; what it was making waits for the next start."""
        for task in self._tasks:
            task.cancel()
        await self.engine.stop()
        for video in self.store.unfinished():
            if video.id in self._cancelling:
                self._over(video.id, CANCELLED, "it was cancelled")
            elif video.status == IN_PROGRESS:
                self.store.requeue(video.id, counts=False)

    # What people do.

    def added(self, video: str) -> None:
        """One waits that did not before."""
        self._positions = None
        self._something.set()
        self.hub.note(video)

    def cancel(self, id: str) -> None:
        """Stops a video that waits or is made; what is over stays as it is."""
        video = self.store.get(id)
        if video is None or video.status in OVER:
            return
        if id in self._group:
            if id not in self._cancelling:
                self.store.wish(id, CANCELLED)
            self._stop_making(id)
        else:
            self._over(id, CANCELLED, "it was cancelled")

    def delete(self, id: str) -> None:
        """Removes a video and its files; one that is made is stopped first."""
        if id in self._group:
            self.store.wish(id, DELETED)
            self._deleting.add(id)
            self._stop_making(id)
        else:
            self.store.delete(id)
            self._moved()
        self.hub.note(id)

    def _stop_making(self, id: str) -> None:
        self._cancelling.setdefault(id, time.monotonic())
        self.engine.tell(cancel=id)

    def is_deleted(self, id: str) -> bool:
        """Whether it is there only until the engine has let go of it."""
        return id in self._deleting

    def position(self, video: Video) -> int:
        """How many come before one that waits."""
        if self._positions is None:
            order = [id for id, _ in self.store.order()]
            # What the engine has comes first, whatever came before it.
            order.sort(key=lambda one: one not in self._group)
            self._positions = {id: place for place, id in enumerate(order)}
        return self._positions.get(video.id, 0)

    def seconds_of(self, plan: Mapping[str, Any]) -> float | None:
        """How many seconds a video will take, by what others took; None: not known."""
        paces = self.store.paces()
        steps: list[tuple[str, float, int]] = plan.get("steps", [])
        if not paces or any(step == "denoise" and step not in paces for step, _, _ in steps):
            return None
        return sum(operations * paces.get(step, 0.0) for step, operations, _ in steps)

    # What the engine does.

    async def _work(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            if self._busy or not self.engine.is_up.is_set():
                continue
            try:
                videos = self._next()
                told = [self._told(video) for video in videos]
            except SdltxError as error:  # of the disk, perhaps for a while
                _logger.error("the queue stands still: %s", error)
                asyncio.get_running_loop().call_later(_PATIENCE, self._something.set)
                continue
            if told:
                self._busy, self._group, self._positions = True, [video.id for video in videos], None
                self.engine.tell(run=told)

    def _next(self) -> list[Video]:
        """The oldest that waits, and others of its size whose prompts can be encoded with its own."""
        waiting = [video for video in self.store.unfinished() if video.status == QUEUED]
        found: list[Video] = []
        for video in waiting:
            try:
                self.catalogue.located(video.request, self.store.folder_of(video.id))
            except InvalidRequestError as error:  # a LoRA that is not there any more
                self._over(video.id, "invalid_request", str(error))
                continue
            if not found or (_size(video) == _size(found[0]) and not _is_alone(video)):
                found.append(video)
            if len(found) == self.settings.together or _is_alone(found[0]):
                break
        return found

    def _told(self, video: Video) -> dict[str, Any]:
        folder = self.store.folder_of(video.id)
        request = self.catalogue.located(video.request, folder)
        return {"id": video.id, "request": request, "folder": str(folder), "file": video.file}

    def _hear_of_crash(self, reason: str, planning: bool) -> None:
        self._hear({"crashed": reason, "planning": planning})

    def _hear(self, message: dict[str, Any]) -> None:
        """Takes a message in; what the database does not take now is tried again until it does."""
        if self._unheard and message.get("event") in ("progress", "preview"):
            return
        self._unheard.append(message)
        self._catch_up()

    def _catch_up(self) -> None:
        while self._unheard:
            try:
                self._take_in(self._unheard[0])
            except SdltxError as error:
                if not self.is_behind:
                    _logger.error("%s; it is tried again", error)
                self.is_behind = True
                return
            self._unheard.popleft()
        self.is_behind = False

    def _take_in(self, message: dict[str, Any]) -> None:
        if "crashed" in message:
            self._crashed(message["crashed"], message["planning"])
            return
        if message.get("idle"):
            self._busy, self._group = False, []
            self._something.set()
            return
        id, event = message["video"], message["event"]
        if id not in self._group:
            return
        live = self.live.setdefault(id, Live())
        if event == "started":
            self._started = id
            self.store.note_started(id)
        elif event == "progress":
            live.phase, live.done, live.total = message["phase"], message["done"], message["total"]
            live.fraction = message.get("fraction", live.fraction)
            left = message.get("left")
            live.left = left if left is not None and left >= 0 else None
        elif event == "preview":
            live.preview = message["step"]
        elif event == "completed":
            self._completed(id, message)
        elif event == "cancelled":
            self._over(id, CANCELLED, "it was cancelled")
        else:
            text = self.catalogue.without_folders(message["message"], self.store.folder_of(id))
            self._over(id, _code_of(message["kind"]), text)
        self.hub.note(id)

    def _completed(self, id: str, message: dict[str, Any]) -> None:
        video = self.store.get(id)
        if video is None:
            return
        self.store.note_plan(id, {**video.plan, **message["plan"]})
        self.store.note_completed(id)
        operations = {step: count for step, count, _ in video.plan.get("steps", ())}
        for phase, seconds in message["seconds"].items():
            if (step := _STEPS.get(phase)) is not None and operations.get(step):
                self.store.note_pace(step, operations[step], seconds)
        if video.status not in OVER:  # else it is told again
            self.metrics.completed(video, sum(message["seconds"].values()))
        self._left(id)

    def _over(self, id: str, code: str, message: str) -> None:
        self.store.note_failed(id, code, message)
        self.metrics.failed(code)
        self._left(id)
        self.hub.note(id)

    def _left(self, id: str) -> None:
        """The engine has nothing more to do with it."""
        self.live.pop(id, None)
        self._cancelling.pop(id, None)
        self._group = [one for one in self._group if one != id]
        if self._started == id:
            self._started = None
        if id in self._deleting:
            self.store.delete(id)
            self._deleting.discard(id)
        self._moved()

    def _crashed(self, reason: str, planning: bool) -> None:
        """The video that was made is to blame; of several that were encoded each gets another chance alone.

        planning: there was a question that may be to blame instead; then what was made is made again.
        """
        group, started = self._group, self._started
        for id in list(group):
            if id in self._cancelling:
                self._over(id, CANCELLED, "it was cancelled")
            elif (id == started or len(group) == 1) and not (planning and self._may_begin_again(id)):
                self._over(id, "engine_crashed", f"the engine ended while it was made ({reason})")
            else:
                if started is None:
                    self.store.note_attempt(id)
                self.store.requeue(id)
                self.live.pop(id, None)
                self.hub.note(id)
        self._busy, self._group, self._started = False, [], None
        self.metrics.engine_restarts.inc()
        self._moved()

    def _may_begin_again(self, id: str) -> bool:
        video = self.store.get(id)
        return video is not None and video.attempts < MOST_ATTEMPTS

    async def _watch(self) -> None:
        """Ends an engine that does not stop a video or hangs, catches up, and removes what is to go."""
        swept = 0.0
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            self._catch_up()
            self.engine.tell(ping=1)
            hangs = self.engine.is_up.is_set() and now - self.engine.heard > _LONGEST_SILENCE
            if hangs or any(now - since > _PATIENCE for since in self._cancelling.values()):
                self.engine.kill()
            try:
                for id in self._deleting - set(self._group):  # which the database did not take when they were left
                    self.store.delete(id)
                    self._deleting.discard(id)
                if self.settings.keep_days is not None and now - swept > _SWEEP:
                    for id in self.store.older_than(time.time() - self.settings.keep_days * 86400):
                        self.delete(id)
                    swept = now
            except SdltxError as error:
                if not self.is_behind:
                    _logger.error("what is to go stays for now: %s", error)

    @property
    def is_well(self) -> bool:
        """Whether videos are made, as far as is known."""
        silent = time.monotonic() - self.engine.heard > _LONG_SILENCE
        return self.engine.is_up.is_set() and not silent and not self.is_behind

    @property
    def is_idle(self) -> bool:
        """Whether nothing is made now."""
        return not self._busy

    def _moved(self) -> None:
        """Places in the queue are others now."""
        self._positions = None
        for id, _ in self.store.order():
            self.hub.note_place(id)


def _is_alone(video: Video) -> bool:
    """What was in an engine that crashed, and what is read as a whole for each run."""
    return video.attempts > 0 or bool(video.request.keys() & {"film", "references"})


def _size(video: Video) -> tuple[Any, ...]:
    return tuple(video.plan.get(name) for name in ("width", "height", "num_frames", "recipe"))


def _code_of(kind: str) -> str:
    return {
        "OutOfMemoryError": "out_of_memory",
        "InvalidRequestError": "invalid_request",
        "ModelMismatchError": "invalid_request",
    }.get(kind, "server_error")
