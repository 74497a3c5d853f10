"""The command line: arguments in, one of the calls of :mod:`sdltx` out, progress and errors in a line each."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn

import sdltx
from sdltx import _core

from .. import library
from . import (
    batch,
    completion,
    config,
    convert,
    decode,
    doctor,
    embed,
    estimate,
    generate,
    inspect,
    models,
    pull,
    recipes,
    serve,
    worker,
)
from .job import Job
from .messages import close_standard_output, flush_standard_output, open_standard_streams, say
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
    """Runs ``sdltx-cli`` with ``argv`` (default: the process's arguments) and returns its exit status.

    Signals are handled while it runs, on the main thread; afterwards as before.
    """
    open_standard_streams()
    words = sys.argv[1:] if argv is None else list(argv)
    args, unknown = _parser().parse_known_args(words)
    args.words = words
    if unknown:
        hint = ""
        if not any(text.startswith("-") for text in unknown):
            numbers = all(text.replace(".", "", 1).isdigit() for text in unknown)
            hint = "; -m takes one file, so repeat it, and -p the prompt"
            if numbers and getattr(args, "images", None):
                hint = f"; frame and strength of a picture belong to its argument: -i PATH:{':'.join(unknown)}"
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if threading.current_thread() is not threading.main_thread():
        return _run(args)
    _import_libraries()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler == signal.SIG_DFL:  # nohup ignores SIGHUP, and means it
                signal.signal(number, _end)
        if argv is None:  # a program of its own, not a call inside of one
            _core.end_on_second_signal()
        return _run(args)
    finally:
        if argv is not None:
            for number, handler in before.items():
                signal.signal(number, handler)


def _run(args: argparse.Namespace) -> int:
    job = Job(args)
    try:
        with job:
            config.apply(args, args.words)
            if getattr(args, "model", None):
                args.named_models = args.model  # as people call them
                if getattr(args, "on", None) is None:  # else each machine has its own
                    args.model = [str(path) for path in library.expanded("load", args.model)]
            args.command(job)
            flush_standard_output()
    except KeyboardInterrupt:
        say("stopped")
        code = 128 + signal.SIGINT
    except _Ended as ended:
        say("stopped")
        code = 128 + ended.number
    except BrokenPipeError:  # the reader has seen enough
        close_standard_output()
        code = 128 + signal.SIGPIPE
    except OSError as error:  # of standard output: those of files have names by now
        close_standard_output()
        say(f"error: [output] cannot write: {error.strerror or error}")
        code = _EXIT_CODES[sdltx.BackendError]
    except Exception as error:
        if args.verbose >= 2:
            say(traceback.format_exc().rstrip())
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), 1)
        say(f"error: {error if isinstance(error, sdltx.SdltxError) else f'{type(error).__name__}: {error}'}")
    else:
        return 0
    finally:
        _core.remove_guarded_files()  # a signal may have come between any two lines
    for line in job.rescued:
        say(line)
    return code


class _Ended(BaseException):
    """Ends the process as KeyboardInterrupt does, so that unfinished files are removed."""

    def __init__(self, number: int) -> None:
        self.number = number


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Ended(number)


def _import_libraries() -> None:
    """Imports what takes long, and would turn the exception of a signal into its own, while signals just end us."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in ("numpy", "av", "PIL.Image", "safetensors.numpy", "tqdm"):
        # One that is missing is reported where it is needed.
        with suppress(ImportError):
            import_module(name)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, before)


def _parser() -> Parser:
    parser = Parser(
        prog="sdltx-cli",
        description="Makes short video clips from text with LTX-2.3 models, without PyTorch.",
        epilog="Each command explains itself: sdltx-cli generate --help",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sdltx {sdltx.__version__} (ggml {_core.ggml_version})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    making = (generate, batch, estimate, recipes, decode)
    for command in (*making, pull, models, inspect, convert, serve, worker, doctor, embed, completion):
        command.add(commands)
    parser.set_defaults(root=parser)
    return parser
