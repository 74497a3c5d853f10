"""``sdltx-cli inspect``: what model files are."""

from __future__ import annotations

import json
from typing import Any

import sdltx

from .job import Job
from .options import add_command, message_options


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "inspect",
        _inspect,
        "tell what model files are, what they lack and what is wrong with them",
        "sdltx-cli inspect ltx-2.3-22b-distilled-Q4_K_M.gguf gemma-3-12b-it/",
    )
    command.add_argument("files", metavar="FILE", nargs="+", help="files and folders of one model, in any order")
    command.add_argument("--tensors", action="store_true", help="list every tensor")
    command.add_argument("--sha256", action="store_true", help="compute the checksums of the files, which reads them")
    command.add_argument("--json", action="store_true", help="print everything as one JSON object")
    message_options(command)


def _inspect(job: Job) -> None:
    args = job.args
    report = sdltx.inspect(*args.files, sha256=args.sha256, progress=job.bars.show)
    job.bars.close()
    if args.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(_printable(str(report)))
        for tensor in report.tensors if args.tensors else ():
            print(_printable(f"{tensor.name}  {list(tensor.shape)}  {tensor.type}"))
    if report.problems:
        count = len(report.problems)
        raise sdltx.ModelMismatchError(
            f"[inspect] {count} problem{'s' if count > 1 else ''}, see above; such files are not loaded together"
        )


def _printable(text: str) -> str:
    """Without the control characters that a file may have put into its names."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
