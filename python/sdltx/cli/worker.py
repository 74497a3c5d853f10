"""``sdltx-cli worker``: this machine's devices for pipelines elsewhere."""

from __future__ import annotations

import signal
from typing import Any

from sdltx import _core

from .job import Job
from .messages import say
from .options import add_command, message_options, threads


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
    message_options(command)


def _worker(job: Job) -> None:
    args = job.args
    if not args.host.startswith("127."):
        say(
            f"warning: everybody who reaches {args.host}:{args.port} can use, read and crash this worker; there are no "
            "passwords. Use it among friends only"
        )
    job.note(f"serving {args.device} at {args.host}:{args.port}; Ctrl-C ends it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # the server waits outside Python
    _core.serve(args.host, args.port, device=args.device, threads=args.threads or 0)
