"""``sdltx-cli recipes``: the ways to make a clip, and what each needs."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import sdltx

from .job import Job
from .options import add_command, message_options, model_options


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "recipes",
        _recipes,
        "list the recipes of generate and what each needs; with -m, whether the model has it",
        "sdltx-cli recipes -m models/",
    )
    model_options(command)
    message_options(command)


def _recipes(job: Job) -> None:
    pipe = job.load() if job.args.model else None
    print("what can be made, by any recipe (those of a film by recipes of one stage; dub by either):")
    for task in sdltx.tasks():
        print(f"  {task['name']}: {task['purpose']}")
        print(f"    needs {task['needs']}")
    print()
    for recipe in sdltx.recipes():
        print(recipe["name"])
        print(fill(f"{recipe['purpose']}.", 100, initial_indent="  ", subsequent_indent="  "))
        print(f"  needs {', '.join(recipe['needs'])}")
        if pipe is not None:
            print(f"  {_verdict(pipe, recipe)}")


def _verdict(pipe: sdltx.Pipeline, recipe: Mapping[str, Any]) -> str:
    if "transformer" not in pipe.info["parts"]:
        return "not with these files: they have no transformer"
    if pipe.info["distilled"] != recipe["distilled"]:
        return f"not with this checkpoint: it is {'' if pipe.info['distilled'] else 'not '}distilled"
    try:
        resolved = pipe.resolve(recipe=recipe["name"])
    except sdltx.SdltxError as error:
        return f"not with these files: {error}"
    width, height, frames = (resolved[name] for name in ("width", "height", "num_frames"))
    steps = " + ".join(str(stage["num_inference_steps"]) for stage in resolved["stages"])
    return f"ready: {width}x{height}, {frames} frames, {steps} steps unless others are given"
