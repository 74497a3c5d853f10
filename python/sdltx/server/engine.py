"""The process that holds the model and makes videos. It reads what to do in lines of JSON, and writes how far it is.

First line: how the model is loaded. Then ``{"run": [video, ...]}``, ``{"cancel": id}`` and ``{"plan": number,
"request": ..., "file": ...}``; a video is an object with id, request, folder and file. It ends with its input, so it
does not outlive a server that was killed.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TextIO

import sdltx
from sdltx._demo import demo_files
from sdltx.contexts import ContextCache
from sdltx.jobs import has_latents, is_guided
from sdltx.preview import Projection
from sdltx.writing import Files, Manner

from .engine_plan import Planner
from .engine_video import PREVIEW, EncodedOnly, ServedVideo
from .store import LATENTS

_OFTEN = 0.2  # seconds between two messages on how far a video is


class Engine:
    """Makes the videos of one model, those that it is given together one after the other."""

    def __init__(self, settings: Mapping[str, Any], lines: BinaryIO, tells: TextIO) -> None:
        self._lines = lines
        self._tells = tells
        self._telling = threading.Lock()
        self._shielded = 0
        self._waiting: queue.SimpleQueue[list[dict[str, Any]]] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._running: set[str] = set()
        self._stop_now = False
        self._projection: Projection | None = None
        self._cache: ContextCache | None = None
        signal.signal(signal.SIGUSR1, self._hear_of_cancelled)
        load = dict(settings["load"])
        files = settings["model"] or demo_files()
        self.pipe = sdltx.load(*files, **load)
        self.pipe.require("text encoder", "text projection", "transformer")
        if settings["cache"]:
            self._cache = ContextCache.of(self.pipe)
        # A worker elsewhere serves one pipeline, so there the one that runs has to plan, too.
        remote = "rpc:" in self.pipe.device
        load["device"] = self.pipe.device.split(",")
        self._planner = Planner(self.pipe if remote else sdltx.load(*files, **load), self.tell)
        self._plans_between = remote
        if not remote:
            threading.Thread(target=self._planner.serve, daemon=True).start()
        self.tell(ready=self._planner.told_of_model())

    def tell(self, **message: Any) -> None:
        """Writes a message. Any thread may."""
        text = json.dumps(message) + "\n"
        with self._shield(), self._telling:
            self._tells.write(text)
            self._tells.flush()

    @contextmanager
    def _shield(self) -> Iterator[None]:
        """What is in the block is not stopped in the middle."""
        main = threading.current_thread() is threading.main_thread()
        self._shielded += main
        try:
            yield
        finally:
            self._shielded -= main
        if main and self._stop_now and not self._shielded:
            self._stop()

    def _hear_of_cancelled(self, _number: int, _frame: FrameType | None) -> None:
        """Is called between two lines of the main thread, and while it computes."""
        self._stop_now = bool(self._running & self._cancelled)
        if self._stop_now and not self._shielded:
            self._stop()

    def _stop(self) -> None:
        self._stop_now = False
        if self._running & self._cancelled:
            raise sdltx.Cancelled("[serve] the video was cancelled")

    def read(self) -> None:
        """Takes messages until there are no more, and ends the process then."""
        main = threading.main_thread().ident
        assert main is not None
        for line in self._lines:
            message = json.loads(line)
            if "run" in message:
                self._waiting.put(message["run"])
            elif "plan" in message:
                self._planner.ask(message)
                if self._plans_between:
                    self._waiting.put([])
            elif "ping" in message:
                self.tell(pong=message["ping"])
            elif "cancel" in message:
                self._cancelled.add(message["cancel"])
                signal.pthread_kill(main, signal.SIGUSR1)
        os._exit(0)  # the files that are not finished have names of their own

    def work(self) -> None:
        """Makes videos for ever."""
        while True:
            videos = self._waiting.get()
            if self._plans_between:
                self._planner.answer_all()
            if videos:
                self._make(videos)
                self.tell(idle=True)

    def _make(self, told: list[dict[str, Any]]) -> None:
        videos: list[ServedVideo] = []
        for one in told:
            try:
                videos.append(self._video(one))
            except sdltx.SdltxError as error:
                self._failed(one["id"], error)
        self._encode(videos)
        for video in videos:
            if self._is_cancelled(video) or not self._ended_well(video):
                continue
            self.tell(video=video.id, event="started")
            self._run([video])
            if self._ended_well(video) and not self._is_cancelled(video):
                self.tell(video=video.id, event="completed", seconds=video.seconds, plan=video.plan_made())

    def _video(self, told: Mapping[str, Any]) -> ServedVideo:
        request = sdltx.Request.from_dict(told["request"])
        folder = Path(told["folder"])
        plan = self.pipe.resolve(request)
        whole = has_latents(plan)
        kept = folder / LATENTS
        latents = None
        if whole and kept.exists():
            with suppress(sdltx.SdltxError):
                latents = sdltx.Latents.load(kept)
        video = ServedVideo(
            told["id"],
            request,
            Files(str(folder / told["file"]), None, str(kept) if whole else None),
            Manner(metadata="plain"),
            cache=self._cache,
            latents=latents,
        )
        video.guided = is_guided(plan)
        video.look_up(video.guided, self.pipe.info["negative_prompt"])
        return video

    def _encode(self, videos: list[ServedVideo]) -> None:
        """Turns the prompts of several into what the transformer attends to, with the text encoder loaded once."""
        fresh = [video for video in videos if not video.is_encoded()]
        if len(fresh) < 2:
            return
        for video in fresh:
            video.only_encode = True
        self._run(fresh)
        for video in fresh:
            video.only_encode = False
            if isinstance(video.error, EncodedOnly):
                video.error = None

    def _run(self, videos: list[ServedVideo]) -> None:
        """Runs videos; those that others' cancelling has stopped go on."""
        while videos := [video for video in videos if not self._is_cancelled(video)]:
            try:
                hear = _Progress(self, videos)
                try:
                    self._running = {video.id for video in videos}
                    if any(video.pictures for video in videos) and not all(video.only_encode for video in videos):
                        self._project(videos[0])
                    self.pipe.run(videos, progress=hear)
                finally:
                    self._running = set()
                    hear.close()
                return
            except sdltx.Cancelled:
                self._running = set()
                for video in videos:
                    video.abort()
            except sdltx.SdltxError as error:
                for video in videos:
                    video.error = video.error or error
                return
            except MemoryError as error:
                for video in videos:
                    video.error = video.error or sdltx.OutOfMemoryError(f"[serve] {error or 'out of memory'}")
                return
            finally:
                self._stop_now = False

    def _is_cancelled(self, video: ServedVideo) -> bool:
        if video.id in self._cancelled:
            self._cancelled.discard(video.id)
            video.was_cancelled = True
            video.abort()
            self.tell(video=video.id, event="cancelled")
        return video.was_cancelled

    def _ended_well(self, video: ServedVideo) -> bool:
        if video.error is not None and not video.told_of_error and not video.was_cancelled:
            video.told_of_error = True
            video.abort()
            self._failed(video.id, video.error)
        return video.error is None

    def _failed(self, video: str, error: BaseException) -> None:
        kind = type(error).__name__ if isinstance(error, (sdltx.SdltxError, MemoryError)) else "BackendError"
        self.tell(video=video, event="failed", kind=kind, message=str(error) or type(error).__name__)

    def _project(self, video: ServedVideo) -> None:
        """Gets ready to show how videos look before they are done."""
        if self._projection is None and "video decoder" in self.pipe.info.parts:
            self.tell(video=video.id, event="progress", phase="preview", done=0, total=1)
            try:
                self._projection = Projection(self.pipe)
            except sdltx.Cancelled:
                raise
            except sdltx.SdltxError:  # a glance is not worth the video
                return

    def show(self, video: ServedVideo, done: int, estimate: sdltx.Latents) -> None:
        """Replaces the picture of how a video looks so far."""
        if self._projection is None or not estimate.video.size:
            return
        output = video.files.output
        assert output is not None
        with suppress(sdltx.SdltxError, OSError):  # a glance is not worth the video
            self._projection.write(Path(output).with_name(PREVIEW), estimate)
            self.tell(video=video.id, event="preview", step=done)

    def between(self) -> None:
        """Is called between two units of work."""
        if self._plans_between:
            self._planner.answer_all()
        self._stop()


class _Progress:
    """Tells how far a run is, but not too often; and keeps how long its parts took."""

    def __init__(self, engine: Engine, videos: list[ServedVideo]) -> None:
        self._engine, self._videos = engine, videos
        for video in videos:
            video.show = engine.show
        self._phase, self._since, self._told = "", time.monotonic(), 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self.close()
            self._phase, self._since, self._told = phase, now, 0.0
        if now - self._told >= _OFTEN or done == total:
            self._told = now
            fraction, left = self._engine.pipe.whole_progress
            alone = len(self._videos) == 1
            for video in self._videos:
                self._engine.tell(
                    video=video.id,
                    event="progress",
                    phase=phase,
                    done=done,
                    total=total,
                    **({"fraction": fraction, "left": left} if alone else {}),
                )
        self._engine.between()

    def close(self) -> None:
        """The last part is over."""
        if self._phase:
            seconds = (time.monotonic() - self._since) / len(self._videos)
            for video in self._videos:
                video.seconds[self._phase] = video.seconds.get(self._phase, 0.0) + seconds
        self._phase = ""


def main() -> None:
    """Is the process."""
    lines = sys.stdin.buffer
    # What libraries print is not for the server.
    tells = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the server
    settings = json.loads(lines.readline())
    try:
        engine = Engine(settings, lines, tells)
    except (sdltx.SdltxError, MemoryError) as error:
        tells.write(json.dumps({"failed": str(error) or "out of memory", "kind": type(error).__name__}) + "\n")
        tells.flush()
        raise SystemExit(1) from None
    threading.Thread(target=engine.read, daemon=True).start()
    engine.work()


if __name__ == "__main__":
    main()
