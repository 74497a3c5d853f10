"""``sdltx-cli decode``: saved latents to a clip."""

from __future__ import annotations

from typing import Any

import sdltx
from sdltx import pipeline

from ..writing import Files
from .clips import FileClip
from .job import Job
from .options import add_command, message_options, model_options, output_options
from .outputs import Outputs


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
    files = Files(args.output, args.audio_out)
    outputs = Outputs(args, args.latents)
    outputs.check(files)
    pipeline.check(tiling=job.tiling())
    job.warn_of_tiles()
    latents = sdltx.Latents.load(args.latents)
    if not latents.frame_rate:
        job.note(f"note: {args.latents} does not say its frame rate; the clip gets {sdltx.Video.frame_rate:g}")
    outputs.check_length(8 * (latents.video.shape[1] - 1) + 1, files)
    pipe = job.load()
    pipe.require(*job.decoders())
    pipe.check_latents(latents)
    job.warn_of_silence(pipe)
    made_with = sorted(map(str, latents.settings.get("model_files") or []))
    if made_with and made_with != sorted(pipe.files):
        job.note(
            f"note: {args.latents} was made with {', '.join(made_with)}, this run decodes with {', '.join(pipe.files)}"
        )
    if latents.audio is None and job.with_sound():
        job.note(f"note: {args.latents} holds no sound; the clip will be silent")
    clip = FileClip(job, sdltx.Request("", tiling=job.tiling()), files, latents=latents)
    job.run(pipe, [clip])
    if clip.error is not None:
        raise clip.error
