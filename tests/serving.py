"""A server as a user starts it, for the tests of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SHORT = {"width": 64, "height": 64, "num_frames": 9, "num_inference_steps": 1, "seed": 1}
"""Of a video that is made in no time."""
LONG = {"width": 256, "height": 256, "num_frames": 49, "num_inference_steps": 60, "seed": 1}
"""Of one that is not finished while a test looks."""


class Serving:
    """A process that serves, and its address."""

    def __init__(self, folder: Path, *arguments: object, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "sdltx", "serve", "--data", folder, "--port", "0", *arguments]
        self.process = subprocess.Popen(
            [str(one) for one in command], stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )
        self.lines: list[str] = []
        self.url = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"serving .* at (http\S+);", line):
                self.url = found[1]
                break
        threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True).start()

    def ask(self, path: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes, dict]:
        """Status, body and headers of a request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def engine(self) -> int:
        """The process that holds the model."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (engine,) = [pid for pid in found if b"server.engine" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return int(engine)


@contextlib.contextmanager
def serving(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[Serving]:
    server = Serving(folder, *arguments, env=env)
    try:
        assert server.url, "".join(server.lines)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        if server.process.stderr is not None:
            server.process.stderr.close()


def wait_for(what, seconds: float = 60):
    """Asks until there is something, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")
