"""``sdltx-cli worker``: this machine's devices for pipelines elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import sdltx
from sdltx import _core

from .job import Job
from .messages import say
from .options import add_command, message_options, threads

SECRET = "SDLTX_WORKER_SECRET"
_SERVES = "SDLTX_WORKER_SERVES"  # in the environment of the process that serves
_TOO_SHORT = 2.0  # seconds: when processes end so soon there are pauses between them
_LONGEST_PAUSE = 5.0  # seconds
_MOST_UNSERVED = 5  # processes in a row that no client can reach, once one was there


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "worker",
        _worker,
        "lend this machine to clips made elsewhere",
        "sdltx-cli worker --host 192.168.1.7 --port 50052\n  sdltx-cli generate --device rpc:192.168.1.7:50052 -m ...",
    )
    group = command.add_argument_group("where")
    group.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="own IPv4 address (default: 127.0.0.1)")
    group.add_argument("--port", metavar="N", type=int, default=50052, help="TCP port (default: 50052)")
    group.add_argument("--device", metavar="NAME", default="cpu", help="what to lend (default: cpu)")
    group.add_argument("-t", "--threads", metavar="N", type=threads, help="CPU threads (default: one per core)")
    group.add_argument(
        "--max-memory",
        metavar="GIB",
        type=float,
        default=0,
        help="of this machine (default: nine tenths of what is free)",
    )
    message_options(command)


def _worker(job: Job) -> None:
    args = job.args
    if not 0 <= args.max_memory < 1 << 20:
        raise sdltx.InvalidRequestError(f"[worker] max-memory {args.max_memory:g} is not a number of GiB")
    if os.environ.get(_SERVES):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # the server waits outside Python
        _core.serve(args.host, args.port, device=args.device, threads=args.threads or 0, max_memory=args.max_memory)
    if not args.host.startswith("127.") and not os.environ.get(SECRET):
        say(
            f"warning: everybody who reaches {args.host}:{args.port} can use and read this worker; set {SECRET} "
            "here and where clips are made, or use it among friends only"
        )
    job.note(f"serving {args.device} at {args.host}:{args.port}; Ctrl-C ends it")
    _keep_serving(sys.argv[1:] if sys.argv else [])


def _keep_serving(words: list[str]) -> None:
    """Runs the server in a process of its own, which what a client sends may end, and starts it again."""
    command = [sys.executable, "-m", "sdltx", *words]
    server: subprocess.Popen[bytes] | None = None

    def stop(number: int, _frame: FrameType | None) -> None:
        if server is not None:
            server.kill()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    ended_early = unserved = 0
    while True:
        start = time.monotonic()
        told, tells = os.pipe()
        with os.fdopen(told, "rb") as serves:  # a byte, once clients come in
            server = subprocess.Popen(command, env=os.environ | {_SERVES: str(tells)}, pass_fds=[tells])
            os.close(tells)
            status = server.wait()
            unserved = 0 if serves.read() else unserved + 1
        if unserved and (ended_early == 0 or unserved >= _MOST_UNSERVED):
            # It never served: an address or a device that is not there. It has said why.
            raise SystemExit(status if status > 0 else 1)
        ended_early = ended_early + 1 if time.monotonic() - start < _TOO_SHORT else 1
        say("the server ended by what a client sent; it is started again")
        time.sleep(min(0.1 * (ended_early - 1), _LONGEST_PAUSE))
