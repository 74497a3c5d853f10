"""``sdltx-cli generate``: a clip from a prompt."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import sdltx
from sdltx import pipeline

from .job import Job
from .options import add_command, frame_rate, message_options, model_options, output_options, sigmas

# What a clip remembers and --from repeats: setting -> accepted types.
_REPEATED: dict[str, tuple[type, ...]] = {
    "prompt": (str,),
    "seed": (int,),
    "width": (int,),
    "height": (int,),
    "num_frames": (int,),
    "frame_rate": (int, float),
    "num_inference_steps": (int,),
    "sigmas": (list,),
    "precision": (str,),
}
# What a clip remembers so that --from can tell what differs.
_COMPARED = ("model_files", "device")


_SIZE = ("width", "height", "num_frames", "frame_rate")
_REQUEST = (*_SIZE, "num_inference_steps", "sigmas", "seed")


def add(commands: Any) -> None:
    """Adds the command."""
    command = add_command(
        commands,
        "generate",
        _generate,
        "make a clip from a prompt",
        'sdltx-cli generate -p "a red triangle moves right over a navy background" -o clip.mp4',
    )
    model_options(command)
    _prompt_options(command)
    _clip_options(command)
    group = output_options(command)
    group.add_argument(
        "--save-latents", metavar="FILE", help="also keep the result before decoding, as .safetensors for decode"
    )
    group.add_argument("--dry-run", action="store_true", help="only print what would run")
    message_options(command)


def _prompt_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("prompt").add_mutually_exclusive_group()
    group.add_argument("-p", "--prompt", metavar="TEXT", help="what the clip shows; - reads it from standard input")
    group.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a UTF-8 text file")
    command.add_argument_group("repeating a clip").add_argument(
        "--from",
        dest="repeat",
        metavar="CLIP",
        help="take prompt, seed and settings from a clip made by sdltx; other options override them. The model is not "
        "part of a clip: give the same -m",
    )


def _clip_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("clip (defaults: the model's own)")
    group.add_argument("-W", "--width", metavar="PX", type=int, help="a multiple of 32")
    group.add_argument("-H", "--height", metavar="PX", type=int, help="a multiple of 32")
    group.add_argument(
        "--num-frames", "--video-frames", metavar="N", type=int, help="a multiple of 8, plus 1: 9, 17, 25, ..., 121"
    )
    group.add_argument(
        "--frame-rate", "--fps", metavar="FPS", type=frame_rate, help="frames per second, such as 24 or 24000/1001"
    )
    group.add_argument("-s", "--seed", metavar="N", type=int, help="of the start noise (default: random)")
    schedule = group.add_mutually_exclusive_group()
    schedule.add_argument(
        "--steps", "--num-inference-steps", dest="num_inference_steps", metavar="N", type=int, help="denoising steps"
    )
    schedule.add_argument(
        "--sigmas", metavar="S,S,...", type=sigmas, help="noise levels in place of a number of steps, from 1 down to 0"
    )


def _generate(job: Job) -> None:
    args = job.args
    if args.output is None and args.save_latents is None and not args.dry_run:
        raise sdltx.InvalidRequestError("[generate] nothing to write; give -o, --save-latents or both")
    job.check_outputs()
    made_with = _repeat(args) if args.repeat is not None else {}
    prompt = _prompt(args)
    request = {name: getattr(args, name) for name in _REQUEST}
    pipeline.check(**request)  # what is wrong should not cost the loading of a model
    start = time.monotonic()

    pipe = job.load()
    for name, value in made_with.items():
        used = _spell(getattr(pipe, "files" if name == "model_files" else name))
        if value != used:
            job.note(f"note: {args.repeat} was made with {value}, this run uses {used}; the clips may differ")
    pipe.require("text encoder", "text projection", "transformer", *(["video decoder"] if args.output else []))
    resolved = pipe.resolve(**request)
    if args.dry_run:
        _print_plan(pipe, args, prompt, resolved)
        return
    context = pipe.encode(prompt, progress=job.bars.show)
    latents = pipe.sample(context, **request, progress=job.bars.show)
    job.note(f"seed {latents.seed}")
    if args.save_latents is not None:
        latents.save(args.save_latents)
        job.note(f"wrote {args.save_latents}")
    if args.output is not None:
        job.write(pipe, latents)
    job.note(f"took {time.monotonic() - start:.1f} s")


def _print_plan(pipe: sdltx.Pipeline, args: argparse.Namespace, prompt: str, resolved: dict[str, Any]) -> None:
    """Prints what would run, a line for each thing, on standard output."""
    info = pipe.info
    seconds = resolved["num_frames"] / resolved["frame_rate"]
    size = {name: resolved[name] for name in _SIZE}
    needed = ", ".join(f"{bytes / 2**20:.0f} MiB to {stage}" for stage, bytes in pipe.estimate(**size).items())
    lines = {
        "model": f"{info['model']} {info['version']}, preset {resolved['preset']} ({', '.join(pipe.files)})",
        "device": f"{pipe.device}, precision {pipe.precision}, offload {pipe.offload}",
        "prompt": f"{prompt!r}, {len(pipe.tokenize(prompt))} tokens",
        "clip": f"{size['width']}x{size['height']}, {size['num_frames']} frames at {size['frame_rate']:g} per second, "
        f"{seconds:.2f} s",
        "steps": f"{resolved['num_inference_steps']}, schedule {resolved['schedule']}",
        "sigmas": ", ".join(f"{sigma:g}" for sigma in resolved["sigmas"]),
        "seed": f"{resolved['seed']}{' (drawn)' if args.seed is None else ''}",
        "memory": f"{needed}; weights are not counted",
    }
    for name, text in lines.items():
        print(f"{name:<7} {text}")


def _prompt(args: argparse.Namespace) -> str:
    source = args.prompt_file or ("-" if args.prompt == "-" else None)
    if source is None:
        if args.prompt is None:
            raise sdltx.InvalidRequestError("[generate] no prompt; give -p, --prompt-file or --from")
        return str(args.prompt)
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode().rstrip("\r\n")
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[prompt] cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[prompt] {source} is not UTF-8 text (byte {error.start})") from None


def _repeat(args: argparse.Namespace) -> dict[str, str]:
    """Fills the arguments that were not given from the clip of --from; returns what else it was made with."""
    from ..media import read_settings

    settings = read_settings(args.repeat)
    for other, name in (
        ("num_inference_steps", "sigmas"),
        ("sigmas", "num_inference_steps"),
        ("prompt_file", "prompt"),
    ):
        if getattr(args, other) is not None:
            settings.pop(name, None)
    for name, types in _REPEATED.items():
        value = settings.get(name)
        if getattr(args, name) is not None or value is None:
            continue
        if type(value) not in types or (name == "sigmas" and any(type(sigma) not in (int, float) for sigma in value)):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: setting {name} is {value!r}; expected {types[0].__name__}"
            )
        setattr(args, name, value)
    if args.precision not in (None, "auto", "f32"):
        raise sdltx.InvalidRequestError(f"[from] {args.repeat}: precision {args.precision!r} is neither auto nor f32")
    return {name: _spell(settings.get(name, f"an unknown {name.split('_')[0]}")) for name in _COMPARED}


def _spell(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)
