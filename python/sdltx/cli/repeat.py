"""``--from``: a clip is made again with what it remembers."""

from __future__ import annotations

import argparse
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import sdltx
from sdltx import _arguments
from sdltx.options import ROWS

from .._files import exists, is_folder
from .job import Job

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


def _found(path: str, args: argparse.Namespace) -> str:
    """The file that a clip remembers: as it says, else seen from the clip's folder, else by its name in one of -m."""
    _arguments.path("from", path)
    if exists(path):
        return path
    folders = [model for model in args.model if is_folder(model)]
    places = [Path(args.repeat).parent / path, *(Path(folder) / Path(path).name for folder in folders)]
    return next((str(place) for place in places if exists(place)), path)


def tell_of_other_pictures(job: Job, args: argparse.Namespace) -> None:
    """Says so if a picture of --from is no longer the one that the clip was made with."""
    for path, sha256 in getattr(args, "remembered_pictures", ()):
        with suppress(OSError):
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256:
                job.warn(f"{path} is not the picture that {args.repeat} was made with; the clips will differ")


def repeat(args: argparse.Namespace) -> dict[str, str]:
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
    return {name: spell(settings.get(name, f"an unknown {name.split('_')[0]}")) for name in _COMPARED}


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


def spell(value: object) -> str:
    """Returns a setting as notes show it."""
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)
