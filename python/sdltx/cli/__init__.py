"""The command line: arguments in, one of the calls of :mod:`sdltx` out, progress and errors in a line each."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import sdltx
from sdltx import _core

from . import decode, generate, worker
from .job import Job, say
from .options import Parser

_EXIT_CODES = {
    sdltx.InvalidRequestError: 2,
    sdltx.ModelFileError: 3,
    sdltx.ModelMismatchError: 4,
    sdltx.OutOfMemoryError: 5,
    MemoryError: 5,
    sdltx.BackendError: 6,
    sdltx.BusyError: 6,
    sdltx.Cancelled: 130,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``sdltx-cli`` with ``argv`` (default: the process's arguments) and returns its exit status."""
    args = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
            signal.signal(number, _end)
    _core.end_on_second_signal()
    job = Job(args)
    try:
        args.command(job)
    except KeyboardInterrupt:
        job.bars.close()
        say("stopped")
        return 128 + signal.SIGINT
    except Exception as error:
        job.bars.close()
        if args.verbose >= 2:
            raise
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1)
        text = str(error) if isinstance(error, sdltx.SdltxError) else f"{type(error).__name__}: {error}"
        say(f"error: {text}")
        return code
    return 0


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Ends the process as Ctrl-C does, by an exception, so that unfinished files are removed."""
    raise SystemExit(128 + number)


def _parser() -> Parser:
    parser = Parser(
        prog="sdltx-cli",
        description="Makes short video clips from text with LTX-2.3 models, without PyTorch.",
        epilog="Each command explains itself: sdltx-cli generate --help",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sdltx {sdltx.__version__} (ggml {_core.ggml_version})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (generate, decode, worker):
        command.add(commands)
    return parser
