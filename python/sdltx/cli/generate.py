"""``sdltx-cli generate``: a clip from a prompt."""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sdltx
from sdltx import _arguments, _core, pipeline
from sdltx.images import conditions_of
from sdltx.options import NAMES, ROWS

from .._files import exists, is_folder
from .job import Job
from .options import (
    add_command,
    clip_option,
    message_options,
    model_options,
    output_options,
    picture,
)

# What --from repeats besides LoRAs, upscalers, tiles and sound: setting -> accepted types.
_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "choice": (str,),
    "whole": (int,),
    "real": (int, float),
    "wholes": (list,),
    "reals": (list,),
    "file": (str,),
}
_REPEATED = {
    **{name: _TYPES[row["kind"]] for name, row in ROWS.items() if row["remembered"] and row["kind"] in _TYPES},
    "precision": (str,),
}
del _REPEATED["tiling"]
# What stays of a clip that is made again by another recipe, which has its own values of the rest.
_OF_ANY_RECIPE = (*(name for name, row in ROWS.items() if row["group"] in ("prompt", "clip")), "precision")
# What a clip remembers so that --from can tell what differs.
_COMPARED = ("model_files", "device", "sdltx_version")

# Titles of the groups of options, and options of which only one can be given.
_GROUPS = {
    "clip": "clip (defaults: the model's own)",
    "recipe": "recipe",
    "guidance": "guidance (defaults: the preset's; each kind costs a pass more per step)",
}
_EITHER = ("upscaler two_stage", "num_inference_steps sigmas")

_SIZE = ("width", "height", "num_frames", "frame_rate")
# Attention looks from every token at every token; the largest clips that the releases were shown have half of this.
_MANY_TOKENS = 65536


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
    _picture_options(command)
    _clip_options(command)
    group = output_options(command, silent="make no sound at all; the picture is then another one")
    group.add_argument(
        "--save-latents", metavar="FILE", help="also keep the result before decoding, as .safetensors for decode"
    )
    group.add_argument(
        "--preview",
        metavar="FILE.webp",
        help="after each step, replace this small animation by what the clip looks like so far",
    )
    group.add_argument("--preview-every", metavar="N", type=int, default=1, help="steps between two (default: 1)")
    group.add_argument("--dry-run", action="store_true", help="only print what would run")
    message_options(command)


def _prompt_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("prompt").add_mutually_exclusive_group()
    clip_option(group, "prompt", "; - reads it from standard input")
    group.add_argument("--prompt-file", metavar="FILE", help="read the prompt from a UTF-8 text file")
    clip_option(command.add_argument_group("negative prompt"), "negative_prompt")
    command.add_argument_group("repeating a clip").add_argument(
        "--from",
        dest="repeat",
        metavar="CLIP",
        help="take prompt, seed and settings from a clip or latents made by sdltx; other options override them. The "
        "model and the device are not part of them: give the same -m",
    )


def _picture_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("pictures (scaled to cover the clip and cut on both sides)")
    group.add_argument(
        "-i",
        "--image",
        metavar="PATH[:FRAME[:STRENGTH[:CRF]]]",
        type=picture,
        action="append",
        dest="images",
        help="a picture that the clip begins with, or shows at this frame (negative: from the end); strength 1 "
        "(default) keeps it as it is, less lets it change; crf is how much H.264 spoils it first, as models are used "
        "to (default: the checkpoint's; 0: not at all). Repeat it for several pictures",
    )
    group.add_argument("--last-image", metavar="PATH", help="a picture that the clip ends with")


def _clip_options(command: argparse.ArgumentParser) -> None:
    for name, title in _GROUPS.items():
        group = command.add_argument_group(title)
        together: dict[str, Any] = {}
        for option in (option for option, row in ROWS.items() if row["group"] == name and row["flags"]):
            pair = next((pair for pair in _EITHER if option in pair.split()), None)
            if pair is None:
                clip_option(group, option)
                continue
            if pair not in together:
                together[pair] = group.add_mutually_exclusive_group()
            clip_option(together[pair], option)
            if option == "upscaler":
                together[pair].add_argument(
                    "--two-stage", action="store_true", help="the same with the upscaler x2 that lies in a folder of -m"
                )


def _generate(job: Job) -> None:
    args = job.args
    if not (args.output or args.save_latents or args.audio_out or args.dry_run):
        raise sdltx.InvalidRequestError("[generate] nothing to write; give -o, --save-latents, --audio-out or several")
    if args.preview_every < 1:
        raise sdltx.InvalidRequestError(f"[preview] --preview-every {args.preview_every} is too small; use 1 or more")
    # First, as it fills in files that are read and what is written.
    made_with = _repeat(args) if args.repeat is not None else {}
    pictures = _pictures(args)
    job.check_outputs(
        args.repeat,
        args.prompt_file,
        args.distilled_lora,
        *(os.fspath(one.image) for one in pictures if isinstance(one.image, (str, os.PathLike))),
        *(args.upscaler or ()),
        *(path for path, _ in [*(args.loras or ()), *(args.loras_stage2 or ())]),
    )
    _tell_of_other_pictures(job, args)
    pictures = [one.loaded() for one in pictures]
    prompt = _prompt(args)
    if args.negative_prompt is not None:
        args.negative_prompt = _as_typed(args.negative_prompt)
    request = {name: getattr(args, name) for name in NAMES if name != "audio"}
    request["audio"] = False if args.no_audio else None
    # What is wrong should not cost the loading of a model.
    pipeline.check(prompt=prompt, tiling=job.tiling(), **request)
    if args.negative_prompt is not None:
        _arguments.text("encode", "negative prompt", args.negative_prompt)
    _warn(job, prompt)
    job.warn_of_tiles()
    start = time.monotonic()

    pipe = job.load()
    for name, value in made_with.items():
        used = _spell(
            sdltx.__version__ if name == "sdltx_version" else getattr(pipe, "files" if name == "model_files" else name)
        )
        if value != used:
            job.note(f"note: {args.repeat} was made with {value}, this run uses {used}; the clips may differ")
    pipe.require("text encoder", "text projection", "transformer", *job.decoders())
    if args.two_stage:
        request["upscaler"] = [_upscaler(pipe)]
    resolved = pipe.resolve(**request)
    pipe.check(conditions=pictures, **request)
    job.check_length(resolved["num_frames"])
    request["seed"] = resolved["seed"]
    memory = pipe.estimate(**request, conditions=pictures, tiling=job.tiling())
    if args.dry_run:
        for line in _plan(pipe, args, prompt, resolved, memory):
            print(line)
        _warn_of_model(job, pipe, request, resolved, memory)
        return
    job.note(f"seed {resolved['seed']}")
    if not args.verbose:
        job.note(
            f"{resolved['num_inference_steps']} steps, schedule {resolved['schedule']}, preset {resolved['preset']}, "
            f"recipe {resolved['recipe']}" + (f", {resolved['passes']} passes a step" if resolved["passes"] > 1 else "")
        )
    else:
        for line in _plan(pipe, args, prompt, resolved, memory):
            job.detail(line)
    _warn_of_model(job, pipe, request, resolved, memory)
    context = pipe.encode(prompt, progress=job.bars.show)
    negative = None
    if args.negative_prompt is not None and _is_guided(resolved):
        negative = pipe.encode(args.negative_prompt, progress=job.bars.show)
    elif args.negative_prompt is not None and args.repeat is None:
        job.warn("the negative prompt has no effect: guidance_scale is 1 for picture and sound; see --guidance-scale")
    preview = _previewer(job, pipe)
    with job.keeping_estimates() as note:

        def on_step(done: int, steps: int, estimate: sdltx.Latents) -> None:
            note(done, steps, estimate)
            if preview is not None:
                preview(done, steps, estimate)

        latents = pipe.sample(
            context,
            negative=negative,
            conditions=pictures,
            **request,
            progress=job.bars.show,
            on_step=on_step,
        )
    with job.keeping(latents):
        if args.save_latents is not None:
            job.save(latents, args.save_latents)
        if args.output is not None or args.audio_out is not None:
            job.write(pipe, latents)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    job.detail(f"took at most {peak / 2**10:.0f} MiB of memory, files that are used in place included")
    job.note(f"took {time.monotonic() - start:.1f} s")


def _previewer(job: Job, pipe: sdltx.Pipeline) -> Callable[[int, int, sdltx.Latents], None] | None:
    path, every = job.args.preview, job.args.preview_every
    if path is None:
        return None
    from ..preview import Projection

    projection = Projection(pipe)
    broken = False

    def show(done: int, steps: int, estimate: sdltx.Latents) -> None:
        nonlocal broken
        if broken or (done % every and done != steps):
            return
        try:
            projection.write(path, estimate, overwrite=job.args.overwrite)
        except (sdltx.SdltxError, OSError) as error:  # a glance is not worth the clip
            broken = True
            job.warn(f"there are no more previews: {error}")

    return show


def _warn(job: Job, prompt: str) -> None:
    """Says what is possible but probably not meant."""
    args = job.args
    if not prompt.strip():
        job.warn("the prompt is empty; the clip will show anything")
    if args.sigmas and args.sigmas[-1] > 0:
        job.warn(f"the sigmas end at {args.sigmas[-1]:g} and not at 0, so noise stays in the clip")


def _is_guided(resolved: dict[str, Any]) -> bool:
    return bool(resolved["guidance_scale"] != 1 or resolved["audio_guidance_scale"] != 1)


def _warn_of_model(
    job: Job, pipe: sdltx.Pipeline, request: dict[str, Any], resolved: dict[str, Any], memory: dict[str, int]
) -> None:
    job.warn_of_silence(pipe)
    for doubt in pipe.doubts(**request):
        job.warn(doubt)
    cells = ((resolved["num_frames"] - 1) // 8 + 1) * (resolved["width"] // 32) * (resolved["height"] // 32)
    if cells > _MANY_TOKENS:
        job.warn(
            f"{resolved['width']}x{resolved['height']} and {resolved['num_frames']} frames are {cells:,} tokens; the "
            "time grows with their square, and models have not seen so many"
        )
    if job.args.device in (None, "cpu"):
        needed = max(memory.values())
        free = next(device["memory_free"] for device in _core.devices() if device["kind"] == "cpu")
        if needed > free:
            job.warn(
                f"about {needed / 2**30:.1f} GiB of memory are needed besides the weights, {free / 2**30:.1f} are free"
            )


def _pictures(args: argparse.Namespace) -> list[sdltx.Condition]:
    return conditions_of(None, args.last_image, args.images)


def _plan(
    pipe: sdltx.Pipeline, args: argparse.Namespace, prompt: str, resolved: dict[str, Any], memory: dict[str, int]
) -> list[str]:
    """What would run, a line for each thing."""
    info = pipe.info
    seconds = resolved["num_frames"] / resolved["frame_rate"]
    size = {name: resolved[name] for name in _SIZE}
    needed = ", ".join(f"{bytes / 2**20:.0f} MiB to {part}" for part, bytes in memory.items() if bytes)
    lines = {
        "model": f"{info['model']} {info['version']}, preset {resolved['preset']} ({', '.join(pipe.files)})",
        "device": f"{pipe.device}, precision {pipe.precision}, offload {pipe.offload}",
        "prompt": f"{prompt!r}, {len(pipe.tokenize(prompt))} tokens",
        "recipe": resolved["recipe"],
        "clip": f"{size['width']}x{size['height']}, {size['num_frames']} frames at {size['frame_rate']:g} per second, "
        f"{seconds:.2f} s",
        "steps": f"{resolved['num_inference_steps']}, schedule {resolved['schedule']}, sampler {resolved['sampler']}",
        "guide": _spell_guidance(resolved),
        "sigmas": ", ".join(f"{sigma:g}" for sigma in resolved["sigmas"]),
        "seed": f"{resolved['seed']}{' (drawn)' if args.seed is None else ''}",
        "memory": f"{needed}; weights are not counted",
    }
    if pictures := _pictures(args):
        shown = (f"{one.image} at frame {one.frame}, strength {one.strength:g}" for one in pictures)
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


def _spell_guidance(resolved: dict[str, Any]) -> str:
    if resolved["passes"] == 1:
        return "none, 1 pass a step"
    streams = []
    for prefix, name in (("", "picture"), ("audio_", "sound")):
        scales = (("cfg", "guidance_scale"), ("stg", "stg_scale"), ("modality", "modality_scale"))
        parts = [f"{label} {resolved[prefix + key]:g}" for label, key in scales]
        streams.append(f"{name} {', '.join(parts)}, rescale {resolved[prefix + 'guidance_rescale']:g}")
    return f"{'; '.join(streams)}; {resolved['passes']} passes a step"


def _prompt(args: argparse.Namespace) -> str:
    source = args.prompt_file or ("-" if args.prompt == "-" else None)
    if source is None:
        if args.prompt is None:
            raise sdltx.InvalidRequestError("[generate] no prompt; give -p, --prompt-file or --from")
        return _as_typed(args.prompt)
    try:
        if source == "-" and sys.stdin is None:
            raise sdltx.InvalidRequestError("[prompt] standard input is closed; give the prompt with -p")
        most = _core.max_prompt_bytes + 8  # and a mark
        if source == "-":
            data = sys.stdin.buffer.read(most)
        else:
            with Path(source).open("rb") as file:
                data = file.read(most)
        # Windows marks its text files, and ends lines in its own way.
        return data.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\r\n")
    except OSError as error:
        raise sdltx.InvalidRequestError(f"[prompt] cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise sdltx.InvalidRequestError(f"[prompt] {source} is not UTF-8 text (byte {error.start})") from None


def _as_typed(text: str) -> str:
    """A prompt of the command line: where the locale is not UTF-8, its bytes arrive in disguise."""
    with suppress(UnicodeError):
        return os.fsencode(text).decode()
    return text


def _found(path: str, args: argparse.Namespace) -> str:
    """The file that a clip remembers: as it says, else seen from the clip's folder, else by its name in one of -m."""
    _arguments.path("from", path)
    if exists(path):
        return path
    folders = [model for model in args.model if is_folder(model)]
    places = [Path(args.repeat).parent / path, *(Path(folder) / Path(path).name for folder in folders)]
    return next((str(place) for place in places if exists(place)), path)


def _tell_of_other_pictures(job: Job, args: argparse.Namespace) -> None:
    """Says so if a picture of --from is no longer the one that the clip was made with."""
    for path, sha256 in getattr(args, "remembered_pictures", ()):
        with suppress(OSError):
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256:
                job.warn(f"{path} is not the picture that {args.repeat} was made with; the clips will differ")


def _repeat(args: argparse.Namespace) -> dict[str, str]:
    """Fills the arguments that were not given from the clip of --from; returns what else it was made with."""
    from ..media import read_settings

    settings = read_settings(args.repeat)
    for name in ("initial", "noise"):
        if settings.get(name):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat} was made from values that were given to Python ({name}), which it does not keep"
            )
    for other, name in (
        ("num_inference_steps", "sigmas"),
        ("sigmas", "num_inference_steps"),
        ("prompt_file", "prompt"),
    ):
        if getattr(args, other) is not None:
            settings.pop(name, None)
    if args.recipe is not None:
        settings = {
            name: settings[name] for name in (*_OF_ANY_RECIPE, "images", "tiling", *_COMPARED) if name in settings
        }
    elif args.preset is not None or args.two_stage or args.upscaler is not None:
        settings.pop("recipe", None)
    for name, types in _REPEATED.items():
        value = settings.get(name)
        if getattr(args, name) is not None or value is None:
            continue
        if type(value) not in types or (name == "sigmas" and any(type(sigma) not in (int, float) for sigma in value)):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: setting {name} is {value!r}; expected {types[0].__name__}"
            )
        setattr(args, name, value)
    if args.images is None and args.last_image is None:
        args.images, args.remembered_pictures = _repeated_pictures(args, settings.get("images", []))
    given = args.loras is not None or args.loras_stage2 is not None
    for name in () if given else ("loras", "loras_stage2"):
        entries = settings.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list) or any(not isinstance(one, list) or len(one) != 2 for one in entries):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: setting {name} is {entries!r}; expected paths with strengths"
            )
        if any(not isinstance(path, str) for path, _ in entries):
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: setting {name} is {entries!r}; expected paths with strengths"
            )
        setattr(args, name, [(_found(path, args), strength) for path, strength in entries])
    upscalers = settings.get("upscalers")
    if upscalers is not None and args.upscaler is None and not args.two_stage:
        if not isinstance(upscalers, list) or not all(isinstance(path, str) for path in upscalers):
            raise sdltx.InvalidRequestError(f"[from] {args.repeat}: setting upscalers is {upscalers!r}; expected paths")
        args.upscaler = [_found(path, args) for path in upscalers]
    if settings.get("distilled_lora") is not None and args.distilled_lora == settings["distilled_lora"]:
        args.distilled_lora = _found(args.distilled_lora, args)
    if settings.get("audio") is False and not args.no_audio:
        args.no_audio, args.silent_clip = True, args.repeat
    tiles = settings.get("tiling")
    if isinstance(tiles, list) and all(getattr(args, f"tile_{name}") is None for name in sdltx.Tiling._fields):
        if len(tiles) != len(sdltx.Tiling._fields) or any(type(value) is not int for value in tiles):
            raise sdltx.InvalidRequestError(f"[from] {args.repeat}: setting tiling is {tiles!r}; expected four numbers")
        for name, value in zip(sdltx.Tiling._fields, tiles, strict=True):
            setattr(args, f"tile_{name}", value)
    if args.precision not in (None, "auto", "f32"):
        raise sdltx.InvalidRequestError(f"[from] {args.repeat}: precision {args.precision!r} is neither auto nor f32")
    for name, known in ((name, row["choices"]) for name, row in ROWS.items() if row["kind"] == "choice"):
        if settings.get(name) is not None and getattr(args, name) not in known:
            flag = name.replace("_", "-")
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: this version has no {name} {getattr(args, name)!r}; give --{flag}"
            )
    return {name: _spell(settings.get(name, f"an unknown {name.split('_')[0]}")) for name in _COMPARED}


def _upscaler(pipe: sdltx.Pipeline) -> str:
    """The upscaler of --two-stage."""
    found = [path for path, kind in pipe.upscalers().items() if kind == "space x2"]
    if len(found) != 1:
        what = f"several spatial upscalers x2 lie ({', '.join(found)})" if found else "no spatial upscaler x2 lies"
        raise sdltx.InvalidRequestError(
            f"[two-stage] {what} in the folders of the model; give its file with --upscaler"
        )
    return found[0]


def _repeated_pictures(args: argparse.Namespace, entries: Any) -> tuple[list[sdltx.Condition], list[tuple[str, str]]]:
    """The pictures of a clip, and the checksums that their files had."""
    clip, pictures, checksums = args.repeat, [], []
    for entry in entries if isinstance(entries, list) else [entries]:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str):
            raise sdltx.InvalidRequestError(
                f"[from] {clip} was made with a picture that it does not name; give all of them with -i"
            )
        path = _found(path, args)
        names = ("frame", "strength", "crf")
        pictures.append(sdltx.Condition(path, **{name: entry[name] for name in names if name in entry}))
        if isinstance(entry.get("sha256"), str):
            checksums.append((path, entry["sha256"]))
    return pictures, checksums


def _spell(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)
