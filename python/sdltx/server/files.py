"""A file as an answer, whole or in ranges; what HTTP has no answer for is told in one line like everything else."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from .problems import Problem, response

_RANGES = re.compile(r"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})(, ?(\d{1,18}-\d{0,18}|-\d{1,18}))*")


class FileAnswer(FileResponse):
    """One that may be gone when it is to be sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Is called by Starlette."""
        refused: Problem | None = None
        start: Message | None = None  # until there is something of the file, which is opened after it
        begun = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal refused, start, begun
            if message["type"] == "http.response.start":
                start = message
                if message["status"] >= 400:
                    told = Headers(raw=message["headers"]).get("content-range")
                    headers = {"Content-Range": told} if told else None
                    refused = Problem(message["status"], "the range is none of the file", headers=headers)
            elif refused is None:
                if start is not None:
                    begun = True
                    await send(start)
                    start = None
                await send(message)

        try:
            size = Path(self.path).stat().st_size
            await super().__call__(_with_ranges(scope, size), receive, send_or_refuse)
        except (RuntimeError, FileNotFoundError):  # as Starlette says it
            if begun or Path(self.path).exists():
                raise
            refused = Problem(404, "it is not there any more", "video_not_found")
        if refused is not None:
            await response(refused)(scope, receive, send)


def _with_ranges(scope: Scope, size: int) -> Scope:
    """The same without ranges that make no sense, as HTTP has it, and without those of several that are not there."""
    wanted = Headers(scope=scope).get("range")
    if wanted is None:
        return scope
    headers = [one for one in scope["headers"] if one[0] != b"range"]
    parts = wanted.removeprefix("bytes=").replace(" ", "").split(",")
    pairs = [part.split("-") for part in parts]
    if _RANGES.fullmatch(wanted) and not any(a and b and int(a) > int(b) for a, b in pairs):
        there = [part for part, (a, b) in zip(parts, pairs, strict=True) if (int(a) < size if a else int(b) > 0)]
        headers.append((b"range", f"bytes={','.join(there or parts)}".encode()))
    return {**scope, "headers": headers}
