"""A process that has imported what the command line needs, and forks for each command: starting takes half of its time.

It is asked over a socket: one message has the command's words, folder and environment, and its three standard streams;
the answers are its number, and its exit status when it has ended. What the variables below say is read before a fork.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

_AT_START = ("PYTHON", "LD_", "OMP_", "GOMP_", "OPENBLAS_", "MALLOC_", "ASAN_", "UBSAN_", "TSAN_", "LSAN_", "FAIL_")
_MODULES = (
    *("sdltx.cli", "sdltx.media", "sdltx.writing"),
    *("numpy", "av", "PIL.Image", "tqdm", "safetensors", "platformdirs", "csv", "ctypes", "zipfile"),
)
_LONGEST = 1 << 20


class Forks:
    """The process, from the one that asks."""

    def __init__(self) -> None:
        self._environment = _seen_at_start(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Whether a process that starts with these variables would be as one of ours."""
        return _seen_at_start(environment) == self._environment

    def run(
        self, words: list[str], folder: str, environment: Mapping[str, str], streams: list[int], timeout: float
    ) -> int:
        """Returns the exit status as subprocess has it. Raises TimeoutError after ``timeout`` seconds."""
        message = json.dumps([words, folder, dict(environment)]).encode("ascii")
        socket.send_fds(self._socket, [message], streams)
        number = int(self._socket.recv(64))
        self._socket.settimeout(timeout)
        try:
            return os.waitstatus_to_exitcode(int(self._socket.recv(64)))
        except TimeoutError:
            os.kill(number, signal.SIGKILL)
            self._socket.settimeout(None)
            self._socket.recv(64)
            raise
        finally:
            self._socket.settimeout(None)

    def close(self) -> None:
        """Ends it."""
        self._socket.close()
        self._process.wait()


def _seen_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


def _serve(asked: socket.socket) -> list[str]:
    """Forks for ever; returns the command's words in each child."""
    while True:
        message, streams, _, _ = socket.recv_fds(asked, _LONGEST, 3)
        if not message:
            os._exit(0)
        number = os.fork()
        if number == 0:
            asked.close()
            words, folder, environment = json.loads(message)
            for i, stream in enumerate(streams):
                os.dup2(stream, i)
                os.close(stream)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            return words
        for stream in streams:
            os.close(stream)
        asked.send(str(number).encode())
        asked.send(str(os.waitpid(number, 0)[1]).encode())


def _main() -> NoReturn:
    del sys.path[0]  # this folder, which no user has
    for module in _MODULES:
        __import__(module)
    words = _serve(socket.socket(fileno=int(sys.argv[1])))
    import sdltx.cli

    sys.argv = [str(Path(sdltx.__file__).with_name("__main__.py")), *words]
    sys.exit(sdltx.cli.main())


if __name__ == "__main__":
    _main()
