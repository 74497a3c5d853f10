"""``sdltx-cli convert``: model files in other types and layouts."""

from __future__ import annotations

import argparse
from typing import Any

from sdltx import conversion
from sdltx.inspection import size_text

from .job import Job
from .options import add_command, message_options, threads


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "convert",
        _convert,
        "write a model in other types or another layout",
        "sdltx-cli convert ltx-2.3-22b-distilled.safetensors ltx-q4/ --type q4_k_m\n"
        "  sdltx-cli convert ltx-2.3-22b-distilled.safetensors ltx-Q6_K.gguf --type q6_k\n"
        "  sdltx-cli convert ltx-q4/ one-file.safetensors --type keep",
    )
    command.add_argument("files", metavar="FILE", nargs="+", help="files and folders of one model, in any order")
    command.add_argument(
        "output",
        metavar="OUT",
        help="NAME.gguf: the transformer with its connectors; NAME.safetensors: all parts in one file; FOLDER/: a file "
        "for each part",
    )
    command.add_argument(
        "--type",
        metavar="TYPE",
        required=True,
        help="what the transformer becomes; its small and sensitive weights stay exact, other parts as they are "
        f"stored: {', '.join(conversion.TYPES)}",
    )
    command.add_argument(
        "--tensor-type",
        metavar="PATTERN=TYPE",
        action="append",
        type=_rule,
        default=[],
        help="the type of tensors whose names fit a shell pattern, such as '*.to_v.weight=q8_0'; repeat it, the first "
        "that fits counts",
    )
    command.add_argument(
        "--part",
        metavar="PART",
        action="append",
        choices=conversion.PARTS,
        help=f"write only this part; repeat it for several: {', '.join(conversion.PARTS)}",
    )
    command.add_argument("--imatrix", metavar="FILE", help="how much inputs matter, from llama.cpp's imatrix tool")
    command.add_argument("-t", "--threads", metavar="N", type=threads, help="CPU threads (default: one per core)")
    command.add_argument("--dry-run", action="store_true", help="say what would be written, and how large it is")
    message_options(command)


def _rule(text: str) -> tuple[str, str]:
    pattern, equals, kind = text.rpartition("=")
    if not (pattern and equals and kind):
        raise argparse.ArgumentTypeError(f"{text!r} is no PATTERN=TYPE, such as '*.to_v.weight=q8_0'")
    return pattern, kind


def _convert(job: Job) -> None:
    args = job.args
    plan = conversion.Plan(
        *args.files,
        output=args.output,
        type=args.type.lower(),
        tensor_types=dict(args.tensor_type),
        parts=args.part,
        imatrix=args.imatrix,
        threads=args.threads,
    )
    lines = []
    for file in plan.files:
        types = ", ".join(f"{kind} {count}" for kind, count in sorted(file.types.items(), key=lambda item: -item[1]))
        lines.append(f"{file.path}: {file.tensors} tensors, {size_text(file.bytes)} ({types})")
    if args.dry_run:
        print("\n".join(lines))
        return
    plan.run(job.bars.show)
    for line in lines:
        job.note(f"wrote {line}")
