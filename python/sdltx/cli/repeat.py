"""``--from``: a clip is made again with what it remembers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import sdltx
from sdltx import _arguments
from sdltx.options import ROWS

from .._files import exists, is_folder, sha256_of
from .job import Job

# What stays of a clip that is made again by another recipe, which has its own values of the rest.
_OF_ANY_RECIPE = frozenset(name for name, row in ROWS.items() if row["group"] in ("prompt", "clip", "decoding"))
# What a clip remembers so that --from can tell what differs.
_COMPARED = ("model_files", "device", "sdltx_version")


def repeat(args: argparse.Namespace) -> dict[str, str]:
    """Fills the arguments that were not given from the clip of --from; returns what else it was made with."""
    from ..media import read_settings

    settings = read_settings(args.repeat)
    _check_choices(args, settings)
    try:
        request = sdltx.Request.from_dict(_wanted(args, settings), lambda path: _found(path, args))
    except sdltx.InvalidRequestError as error:
        raise sdltx.InvalidRequestError(f"[from] {args.repeat}: {error}") from None
    for name, value in {**request.options, "negative_prompt": request.negative_prompt}.items():
        if name != "audio" and getattr(args, name, None) is None:
            setattr(args, name, value)
    if args.prompt is not None or args.prompt_file is not None:
        args.enhanced_from = None
    if args.prompt is None and args.prompt_file is None and "prompt" in settings:
        args.prompt = request.prompt
    if args.images is None and args.last_image is None:
        args.images = list(request.conditions)
        args.remembered_pictures = [_told(one, "sha256") for one in settings.get("images") or ()]
    if args.given_sound is None and args.given_film is None:
        args.given_sound, args.given_film = request.sound, request.film
        args.remembered_files = [
            (one.source, _told(settings.get(name), "sha256"))
            for name, one in (("sound", request.sound), ("film", request.film))
            if one is not None
        ]
    remembered: list[tuple[Any, str | None]] = getattr(args, "remembered_files", [])
    if args.given_film is request.film and request.film is not None and request.film.mask is not None:
        remembered.append((request.film.mask, _told(settings.get("film"), "mask_sha256")))
    if args.references is None:
        args.references = list(request.references)
        for one, told in zip(request.references, settings.get("references") or (), strict=False):
            remembered.append((one.source, _told(told, "sha256")))
            if one.attention is not None:
                remembered.append((one.attention, _told(told, "attention_sha256")))
    args.remembered_files = remembered
    if request.options.get("audio") is False and not args.no_audio:
        args.no_audio, args.silent_clip = True, args.repeat
    tiles = {f"tile_{name}": value for name, value in (request.tiling or sdltx.Tiling())._asdict().items()}
    if request.tiling is not None and all(getattr(args, name) is None for name in tiles):
        vars(args).update(tiles)
    args.precision = args.precision or settings.get("precision")
    if args.precision not in (None, "auto", "f32"):
        raise sdltx.InvalidRequestError(f"[from] {args.repeat}: precision {args.precision!r} is neither auto nor f32")
    return {name: spell(settings.get(name, f"an unknown {name.split('_')[0]}")) for name in _COMPARED}


def _told(entry: Any, name: str) -> Any:
    """What a clip remembers of a file; one that is only named has nothing more."""
    return entry.get(name) if isinstance(entry, dict) else None


def _wanted(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What is left of a clip's settings beside what the command line says."""
    wanted = {name: value for name, value in settings.items() if name in ROWS or name in _MORE}
    if args.recipe is not None:
        wanted = {name: value for name, value in wanted.items() if name in _OF_ANY_RECIPE or name == "images"}
    elif args.preset is not None or args.two_stage or args.upscaler is not None:
        wanted.pop("recipe", None)
    for given, name in (
        ("num_inference_steps", "sigmas"),
        ("sigmas", "num_inference_steps"),
        ("two_stage", "upscalers"),
        ("loras", "loras_stage2"),
        ("loras_stage2", "loras"),
        ("last_image", "images"),
        ("duration", "num_frames"),
    ):
        if getattr(args, given):
            wanted.pop(name, None)
    if args.references is not None:
        wanted.pop("references", None)
    if any(getattr(args, name) for name in _TASKS):
        # Another task has its own length, and nothing of the one before but the film.
        kept = {name for name, row in ROWS.items() if row["group"] == "material"} | {"num_frames", "width", "height"}
        wanted = {name: value for name, value in wanted.items() if name not in kept}
    if args.given_sound is not None or args.given_film is not None:
        # Another material has another size and length, and another task.
        of_film = ("sound", "film", "width", "height", "num_frames", "frame_rate") if "film" in wanted else ("sound",)
        wanted = {name: value for name, value in wanted.items() if name not in of_film}
    for name in ("images", "upscaler", "loras", "loras_stage2"):
        if getattr(args, name) is not None:
            wanted.pop({"upscaler": "upscalers"}.get(name, name), None)
    wanted.setdefault("prompt", "")
    return wanted


# Options of which one says what becomes of a film.
_TASKS = ("retake", "extend", "extend_before", "foley", "dub", "mask")
_MORE = ("images", "sound", "film", "references", "upscalers", "initial", "noise")


def _check_choices(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    for name, row in ROWS.items():
        value = settings.get(name)
        if (
            row["kind"] == "choice"
            and value is not None
            and getattr(args, name) is None
            and value not in row["choices"]
        ):
            flag = name.replace("_", "-")
            raise sdltx.InvalidRequestError(
                f"[from] {args.repeat}: this version has no {name} {value!r}; give --{flag}"
            )


def _found(path: str, args: argparse.Namespace) -> str:
    """The file that a clip remembers: as it says, else seen from the clip's folder, else by its name in one of -m."""
    _arguments.path("from", path)
    if exists(path):
        return path
    folders = [model for model in args.model if is_folder(model)]
    places = [Path(args.repeat).parent / path, *(Path(folder) / Path(path).name for folder in folders)]
    return next((str(place) for place in places if exists(place)), path)


def tell_of_other_files(job: Job, args: argparse.Namespace) -> None:
    """Says so if a file of --from is no longer the one that the clip was made with."""
    for picture, sha256 in zip(args.images or (), getattr(args, "remembered_pictures", ()), strict=False):
        if sha256 and sha256_of(picture.image) not in (None, sha256):
            job.warn(f"{picture.image} is not the picture that {args.repeat} was made with; the clips will differ")
    for source, sha256 in getattr(args, "remembered_files", ()):
        if sha256 and sha256_of(source) not in (None, sha256):
            job.warn(f"{source} is not the file that {args.repeat} was made with; the clips will differ")


def spell(value: object) -> str:
    """Returns a setting as notes show it."""
    return ", ".join(sorted(map(str, value))) if isinstance(value, list) else str(value)
