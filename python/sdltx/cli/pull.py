"""``sdltx-cli pull``: downloads the files of a model."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from .. import library, model_sets
from ..inspection import size_text
from .job import Job
from .options import add_command, message_options

if TYPE_CHECKING:
    from ..hub import Plan


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "pull",
        _pull,
        "download the files of a model from the Hugging Face Hub; sdltx-cli models --known lists what there is",
        "sdltx-cli pull ltx-2.3-distilled:q4_k_m",
    )
    command.add_argument("name", metavar="SET", help="such as ltx-2.3-distilled:q4_k_m")
    command.add_argument(
        "--with",
        dest="options",
        metavar="NAME",
        action="append",
        default=[],
        help="also a file that clips can be made without: upscaler, temporal-upscaler, distilled-lora; repeat it for "
        "several",
    )
    command.add_argument(
        "--to",
        metavar="FOLDER",
        help="where to (default: the first folder of SDLTX_MODELS, or one in the user's data folder)",
    )
    command.add_argument("--verify", action="store_true", help="compute the checksums of files that are here, too")
    command.add_argument("--dry-run", action="store_true", help="only say what would be downloaded")
    message_options(command)


def _pull(job: Job) -> None:
    from .. import hub

    args = job.args
    planned = hub.plan(args.name, options=args.options, folder=args.to)
    for line in describe(planned):
        job.note(line)
    if args.dry_run:
        return
    paths = hub.fetch(planned, verify=args.verify, progress=job.bars.show)
    job.bars.close()
    for path in paths:
        job.detail(str(path))
    places = [place.folder for place in library.places()]
    if planned.folder not in places and any(planned.folder in path.parents for path in paths):
        job.note(f"so that it is found by its name, set SDLTX_MODELS={shlex.quote(str(planned.folder))}")
    job.note(f"ready: sdltx-cli generate -m {planned.name} -p 'a red fox in the snow' -o fox.mp4")


def describe(planned: Plan) -> list[str]:
    """What a download comes to, in lines."""
    wanted = model_sets.require_set("pull", planned.name)
    lines = [f"{wanted.name}, {wanted.purpose}; into {planned.folder}"]
    width = max(len(file.name) for file in planned.files)
    for file in planned.files:
        state = f"here, {file.here.parent}" if file.here is not None else f"from {file.repository}"
        if file.here is None and file.left < file.bytes:
            state += f", {size_text(file.bytes - file.left)} of it here"
        lines.append(f"  {file.name:<{width}}  {size_text(file.bytes):>8}  {state}")
    lines.append(f"to download: {size_text(planned.left)}; free on that disk: {size_text(planned.free)}")
    for licence, page in sorted({(file.licence, file.page) for file in planned.files}):
        lines.append(f"licence: {licence}, {page}")
    return lines
