"""``sdltx-cli decode``: saved latents to a clip."""

from __future__ import annotations

from typing import Any

import sdltx

from .job import Job
from .options import add_command, message_options, model_options, output_options


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "decode",
        _decode,
        "turn saved latents into a clip",
        "sdltx-cli decode clip.safetensors -o clip.webm --tile-size 256",
    )
    command.add_argument("latents", metavar="LATENTS", help="file written by generate --save-latents")
    model_options(command)
    output_options(command, required=True)
    message_options(command)


def _decode(job: Job) -> None:
    args = job.args
    job.check_outputs()
    latents = sdltx.Latents.load(args.latents)
    job.write(job.load(), latents)
