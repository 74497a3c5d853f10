"""``sdltx-cli estimate``: the memory that a clip takes, before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sdltx
from sdltx import _core, pipeline
from sdltx.options import NAMES

from . import plan
from .generate import clip_options, given_film, given_references, given_sound, material_options, spatial_upscaler
from .job import Job
from .options import add_command, message_options, model_options, tile_options

_LONGEST = 20  # seconds that a prompt may ask for


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "estimate",
        _estimate,
        "tell the memory that a clip takes, step by step",
        "sdltx-cli estimate -m ltx-2.3-22b-distilled.safetensors -m gemma/ -W 1280 -H 704 --frames 121",
    )
    model_options(command)
    material_options(command)
    clip_options(command)
    tile_options(command)
    command.add_argument("--json", action="store_true", help="print it as JSON, in bytes")
    message_options(command)


def _estimate(job: Job) -> None:
    args = job.args
    options = {name: getattr(args, name, None) for name in NAMES if name != "audio"}
    pipeline.check(tiling=job.tiling(), **options)
    sound, film, references = given_sound(args), given_film(args), given_references(args)
    request = sdltx.Request(
        "", sound=sound, film=film and film.loaded(), references=references, tiling=job.tiling(), **options
    )
    pipe = job.load()
    if args.two_stage:
        request = request.replaced(upscaler=[spatial_upscaler(pipe.upscalers())])
    told = pipe.estimate(request)
    if args.json:
        print(json.dumps(told.to_dict(), indent=1))
        return
    for line in table(told):
        print(line)
    for line in summary(pipe, told):
        print(line)
    if args.duration == "auto":
        resolved = pipe.resolve(request)
        seconds = resolved["num_frames"] / resolved["frame_rate"]
        longest = pipe.estimate(request.replaced(duration=_LONGEST))
        print(
            f"the prompt decides how long the clip is: this is of {seconds:.2f} s; {_LONGEST} s, the longest, take "
            f"{plan.gib(longest['memory'])} at most"
        )


def table(told: Mapping[str, Any]) -> list[str]:
    """Returns the figures of each step, in GiB."""
    names = ("weights", "in files", "inputs", "working", "on their way", "together")
    lines = [f"{'GiB':<16} {' '.join(f'{name:>12}' for name in names)}"]
    for step in told["steps"]:
        if not step["devices"]:
            continue
        sums = [sum(one[kind] for one in step["devices"]) for kind in ("weights", "mapped", "inputs", "working")]
        figures = [*sums, step["host"], step["memory"]]
        lines.append(f"{step['step']:<16} {' '.join(f'{figure / 2**30:12.2f}' for figure in figures)}")
    return lines


def summary(pipe: sdltx.Pipeline, told: Mapping[str, Any]) -> list[str]:
    """Returns what people want to know of it."""
    lines = [
        f"{plan.gib(told['memory'])} of memory at most; what lies in files is used there, and is best kept in memory"
    ]
    lines += plan.choices(told)
    lines += [f"it does not fit: {step['misfit']}" for step in told["steps"] if step["misfit"]]
    if pipe.device == "cpu":
        free = next(device["memory_free"] for device in _core.devices() if device["kind"] == "cpu")
        lines.append(f"{plan.gib(free)} are free")
    return lines
