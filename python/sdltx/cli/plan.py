"""What would run, as people read it, and what of it is probably not meant."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import sdltx
from sdltx import _core

from .job import Job

_SIZE = ("width", "height", "num_frames", "frame_rate")
# Attention looks from every token at every token; the largest clips that the releases were shown have half of this.
_MANY_TOKENS = 65536


def warn(job: Job, prompt: str) -> None:
    """Says what is possible but probably not meant."""
    args = job.args
    if not prompt.strip():
        job.warn("the prompt is empty; the clip will show anything")
    if args.sigmas and args.sigmas[-1] > 0:
        job.warn(f"the sigmas end at {args.sigmas[-1]:g} and not at 0, so noise stays in the clip")


def warn_of_model(
    job: Job, pipe: sdltx.Pipeline, request: sdltx.Request, resolved: Mapping[str, Any], memory: Mapping[str, Any]
) -> None:
    """Says what this model will probably not do as it is meant."""
    job.warn_of_silence(pipe)
    for doubt in pipe.doubts(request):
        job.warn(doubt)
    cells = ((resolved["num_frames"] - 1) // 8 + 1) * (resolved["width"] // 32) * (resolved["height"] // 32)
    if cells > _MANY_TOKENS:
        job.warn(
            f"{resolved['width']}x{resolved['height']} and {resolved['num_frames']} frames are {cells:,} tokens; the "
            "time grows with their square, and models have not seen so many"
        )
    if job.args.device in (None, "cpu"):
        free = next(device["memory_free"] for device in _core.devices() if device["kind"] == "cpu")
        if memory["memory"] > free:
            job.warn(f"about {memory['memory'] / 2**30:.1f} GiB of memory are needed, {free / 2**30:.1f} are free")
    for step in memory["steps"]:
        if step["misfit"]:
            job.warn(f"it does not fit: {step['misfit']}")
    if chosen := choices(memory):
        job.note(f"memory: {'; '.join(chosen)}")


def choices(told: Mapping[str, Any]) -> list[str]:
    """Returns what is done as not everything fits, a line for each step."""
    lines = []
    for step in told["steps"]:
        if step["passing"]:
            seconds = f", {step['reading']:.1f} s at the speed of the disk" if step["reading"] else ""
            lines.append(
                f"to {step['step']}, {gib(step['passing'])} of {gib(step['devices'][-1]['mapped'])} of weights are "
                f"read each time they are used{seconds}; the others stay"
            )
        if step["brought"]:
            lines.append(
                f"to {step['step']}, {gib(step['brought'])} of weights are copied to {step['devices'][0]['device']} "
                "each time they are used; the others stay"
            )
        if step["tiles"]:
            lines.append(f"pictures are decoded in tiles of {step['tiles'][0]} pixels and {step['tiles'][2]} frames")
    return lines


def gib(count: int) -> str:
    """Returns bytes as people read them."""
    return f"{count / 2**30:.1f} GiB"


def plan(
    pipe: sdltx.Pipeline,
    args: argparse.Namespace,
    request: sdltx.Request,
    resolved: Mapping[str, Any],
    memory: Mapping[str, Any],
) -> list[str]:
    """What would run, a line for each thing."""
    info = pipe.info
    seconds = resolved["num_frames"] / resolved["frame_rate"]
    size = {name: resolved[name] for name in _SIZE}
    needed = ", ".join(
        f"{step['memory'] / 2**20:.0f} MiB to {step['step']}" for step in memory["steps"] if step["memory"]
    )
    lines = {
        "model": f"{info['model']} {info['version']}, preset {resolved['preset']} ({', '.join(pipe.files)})",
        "device": f"{pipe.device}, precision {pipe.precision}, offload {pipe.offload}",
        "prompt": f"{request.prompt!r}, {len(pipe.tokenize(request.prompt))} tokens"
        + ", which is written out first" * bool(request.options.get("enhance")),
        "recipe": resolved["recipe"],
        "clip": f"{size['width']}x{size['height']}, "
        + (
            f"as many frames as the prompt asks for at {size['frame_rate']:g} per second; the rest is told for "
            f"{size['num_frames']}"
            if "duration" in resolved
            else f"{size['num_frames']} frames at {size['frame_rate']:g} per second, {seconds:.2f} s"
        ),
        "steps": f"{resolved['num_inference_steps']}, schedule {resolved['schedule']}, sampler {resolved['sampler']}",
        "guide": _spell_guidance(resolved),
        "sigmas": ", ".join(f"{sigma:g}" for sigma in resolved["sigmas"]),
        "seed": f"{resolved['seed']}{' (drawn)' if args.seed is None else ''}",
        "memory": f"{needed}; what lies in files is used there",
    }
    if resolved["task"] != "text to clip":
        lines["task"] = resolved["task"]
    for name, value in (("sound", request.sound), ("film", request.film)):
        if value is not None:
            lines[name] = str(value.source)
    if request.conditions:
        shown = (f"{one.image} at frame {one.frame}, strength {one.strength:g}" for one in request.conditions)
        lines["images"] = "; ".join(shown)
    stages = resolved["stages"]
    if len(stages) == 1:
        if stages[0]["loras"]:
            lines["loras"] = _spell_loras(stages[0]["loras"])
    else:
        lines["upscale"] = ", ".join(resolved["upscalers"])
        for number, stage in enumerate(stages, 1):
            lines[f"stage {number}"] = (
                f"{stage['width']}x{stage['height']}, {stage['num_frames']} frames at {stage['frame_rate']:g}, "
                f"{stage['num_inference_steps']} steps{_spell_loras(stage['loras'], ' with ')}"
            )
    return [f"{name:<7} {text}" for name, text in lines.items()]


def _spell_loras(loras: list[tuple[str, float]], before: str = "") -> str:
    return before * bool(loras) + ", ".join(f"{path} at {strength:g}" for path, strength in loras)


def _spell_guidance(resolved: Mapping[str, Any]) -> str:
    if resolved["passes"] == 1:
        return "none, 1 pass a step"
    streams = []
    for prefix, name in (("", "picture"), ("audio_", "sound")):
        scales = (("cfg", "guidance_scale"), ("stg", "stg_scale"), ("modality", "modality_scale"))
        parts = [f"{label} {resolved[prefix + key]:g}" for label, key in scales]
        streams.append(f"{name} {', '.join(parts)}, rescale {resolved[prefix + 'guidance_rescale']:g}")
    return f"{'; '.join(streams)}; {resolved['passes']} passes a step"
