"""The engine as the server sees it: a process that is started, asked, told, and started again when it crashes."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import errors
from ..errors import BackendError, SdltxError
from .settings import Settings

_logger = logging.getLogger("sdltx.server")
_LONGEST_LINE = 1 << 20
_LONGEST_PAUSE = 30.0  # seconds between two starts of an engine that ends at once
_PATIENCE = 5.0  # seconds to end in
_LONGEST_PLAN = 60.0  # seconds


class EngineProcess:
    """Runs the engine, and hands on what it says."""

    def __init__(
        self, settings: Settings, hear: Callable[[dict[str, Any]], None], ended: Callable[[str, bool], None]
    ) -> None:
        """hear: gets its messages on videos, and raises nothing; ended: called when it crashed, likewise.

        ended hears the reason, and whether the engine was asked something.
        """
        self._settings, self._hear, self._ended = settings, hear, ended
        self._process: asyncio.subprocess.Process | None = None
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_question = 0
        self._watcher: asyncio.Task[None] | None = None
        self.model: dict[str, Any] = {}
        """What is loaded."""
        self.is_up = asyncio.Event()
        self.restarts = 0
        self.heard = time.monotonic()
        """When it said something last."""
        self._ending = False

    async def start(self) -> None:
        """Starts it. Raises what loading the model raises."""
        await self._start()
        self._watcher = asyncio.create_task(self._watch())

    async def _start(self) -> None:
        settings = self._settings
        told = {"model": list(settings.model), "load": dict(settings.load), "cache": True}
        command = [sys.executable, "-m", f"{__package__}.engine"]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
            start_new_session=True,  # Ctrl-C on the terminal is for the server
            env={**os.environ, "TMPDIR": str(settings.folder)},
        )
        self.tell(**told)
        message = await self._read()
        if message is None:
            raise BackendError("[serve] the engine ended while it loaded the model; see what it wrote above")
        if "failed" in message:
            raise _error(message["kind"], message["failed"])
        self.model = message["ready"]
        self.is_up.set()

    async def _read(self) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:  # too long
            return None
        self.heard = time.monotonic()
        message: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return message

    async def _watch(self) -> None:
        pause = 0.0
        while True:
            while (message := await self._read()) is not None:
                pause = 0.0
                if "pong" in message:
                    continue
                if (number := message.pop("answer", None)) is None:
                    self._hear(message)
                elif (question := self._questions.pop(number, None)) is not None and not question.done():
                    question.set_result(message)
            self.is_up.clear()
            reason = await self._reason()
            asked = bool(self._questions)
            for question in self._questions.values():
                if not question.done():
                    question.set_exception(BackendError(f"[serve] the engine ended ({reason}); try again"))
            self._questions.clear()
            if self._ending:
                return
            _logger.error("the engine ended (%s); it is started again", reason)
            self._ended(reason, asked)  # which raises nothing
            while not self._ending:
                self.restarts += 1
                await asyncio.sleep(pause)
                pause = min(2 * pause + 0.5, _LONGEST_PAUSE)
                try:
                    await self._start()
                except (SdltxError, OSError) as error:
                    _logger.error("the engine does not start: %s", error)
                    await self._reason()
                    continue
                self._hear({"idle": True})
                break

    async def _reason(self) -> str:
        """Why it ended."""
        assert self._process is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), _PATIENCE)
        except asyncio.TimeoutError:
            self.kill()
            status = await self._process.wait()
        if status >= 0:
            return f"with status {status}"
        name = signal.Signals(-status).name
        return f"by {name}" + (", perhaps as memory was out" if name == "SIGKILL" else "")

    def tell(self, **message: Any) -> None:
        """Sends it a message; one that crashed meanwhile is told nothing."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(json.dumps(message).encode() + b"\n")

    async def plan(self, request: Mapping[str, Any], file: str) -> dict[str, Any]:
        """Returns what a request comes to. Raises why it cannot be."""
        if not self.is_up.is_set():
            raise BackendError("[serve] the engine is being started; try again in a moment")
        self._last_question += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[self._last_question] = future
        self.tell(plan=self._last_question, request=request, file=file)
        try:
            answer = await asyncio.wait_for(future, _LONGEST_PLAN)
        except asyncio.TimeoutError:
            raise BackendError("[serve] the engine does not answer; try again in a moment") from None
        if "error" in answer:
            raise _error(answer["error"], answer["message"])
        return answer

    def kill(self) -> None:
        """Ends it at once; it is started again."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """Ends it for good."""
        self._ending = True
        if self._process is None:
            return
        await self._reason()
        if self._watcher is not None:
            self._watcher.cancel()


def _error(kind: str, message: str) -> SdltxError:
    """What was raised in the engine."""
    known = getattr(errors, kind, None)
    if isinstance(known, type) and issubclass(known, SdltxError):
        return known(message)
    return BackendError(message)
