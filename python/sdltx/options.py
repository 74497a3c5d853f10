"""What a clip is asked to be: the arguments of sample() and generate(), and how they reach the core."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from . import _arguments, _core
from .errors import InvalidRequestError

if TYPE_CHECKING:
    from fractions import Fraction
    from typing import TypeAlias

    File: TypeAlias = str | os.PathLike[str]
    Lora: TypeAlias = File | tuple[File, float]


_MOST_BLOCKS = 1 << 20


class Options(TypedDict, total=False):
    """Options of a clip. None, and what is not given, stands for the checkpoint's own default."""

    width: int | None
    """Pixels, a multiple of 32."""
    height: int | None
    """Pixels, a multiple of 32."""
    num_frames: int | None
    """Length in frames, 8 k + 1."""
    frame_rate: float | Fraction | None
    """Frames per second, above 0."""
    num_inference_steps: int | None
    """Steps of the default schedule, at least 1."""
    sigmas: Sequence[float] | None
    """Noise levels, falling from 1 to a final 0, in place of the default schedule."""
    seed: int | None
    """Of the start noise, 0 to 2**63 - 1; None: a random one. The result tells which (``latents.seed``). One seed gives
    one noise everywhere, and the same latents whatever ``threads`` is."""
    preset: str | None
    """Name of one of ``pipe.presets``: whose defaults and schedule apply; None: those that fit the checkpoint."""
    sampler: str | None
    """"euler", "gradient_estimation", "euler_ancestral" or "res_2s", which takes two estimates per step."""
    audio: bool | None
    """Whether sound is made along with the picture (default). Without it a run is a little faster, and the picture
    another one: the two streams look at each other."""
    guidance_scale: float | None
    """Classifier-free guidance of the picture, away from the negative prompt; 1: none. Scales are 0 to 100."""
    audio_guidance_scale: float | None
    """The same of the sound."""
    stg_scale: float | None
    """Spatio-temporal guidance of the picture, away from what the model makes when self-attention is left out in
    ``stg_blocks``; 0: none."""
    audio_stg_scale: float | None
    """The same of the sound."""
    stg_blocks: Sequence[int] | None
    """Blocks of the transformer, counted from 0."""
    modality_scale: float | None
    """Guidance of the picture away from what it would be without hearing the sound; 1: none."""
    audio_modality_scale: float | None
    """The same of the sound, which does not see the picture."""
    guidance_rescale: float | None
    """How far guided estimates are brought back to the spread of plain ones, 0 to 1."""
    audio_guidance_rescale: float | None
    """The same of the sound."""
    guidance_skip_steps: int | None
    """Steps between two that are estimated; the picture's last estimate serves in between. 0: every step."""
    audio_guidance_skip_steps: int | None
    """The same of the sound. Steps that both skip cost nothing."""
    guidance_interval: Sequence[float] | None
    """Lowest and highest noise level at which there is guidance, within 0 and 1."""
    guidance_method: str | None
    """How the difference to the negative prompt counts: "cfg", "cfg_star" (the negative estimate is scaled to the
    length of the other) or "apg" (adaptive projected guidance)."""
    apg_eta: float | None
    """Weight of the part of the difference that is parallel to the estimate; 1: as much as the rest."""
    apg_threshold: float | None
    """Longest difference, as an L2 norm; 0: any."""
    recipe: str | None
    """Name of one of ``sdltx.recipes()``: how the clip is made; None: as fits the checkpoint, in two stages if there is
    an upscaler. Upscaler and distilled LoRA that it needs are also found in the folders of the model."""
    upscaler: File | Sequence[File] | None
    """The file of a latent upscaler, or several: the clip is made in two stages, smaller or with fewer frames first;
    then it is upscaled and refined in three steps. The size is that of the result, a multiple of 64 for a factor of
    two, and of 96 for one of 1.5; if it is not given, the first stage has the checkpoint's own."""
    loras: Iterable[Lora] | None
    """Files of LoRAs, or pairs of a file and a strength (1 otherwise). The weights of the model stay as they are."""
    loras_stage2: Iterable[Lora] | None
    """Those of the second stage, in place of ``loras``."""
    distilled_lora: File | None
    """The LoRA that makes a distilled checkpoint of this one, for recipes that refine with it; they know how strong."""


def _file(where: str, _name: str, value: Any) -> str | None:
    return None if value is None else _arguments.path(where, value)


def _files(_where: str, _name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    files = [value] if isinstance(value, (str, os.PathLike)) or not isinstance(value, Sequence) else value
    return [_arguments.path("upscaler", one) for one in files]


def _loras(_where: str, name: str, given: Any) -> list[tuple[str, float]] | None:
    if given is None:
        return None
    if isinstance(given, (str, bytes, os.PathLike)) or not isinstance(given, Iterable):
        _arguments.refuse("lora", name, "a list of files, or of files and strengths", given)
    found = []
    for one in given:
        path, strength = one if isinstance(one, (tuple, list)) and len(one) == 2 else (one, 1.0)
        value = _arguments.real("lora", "strength", strength)
        if not math.isfinite(value):
            raise InvalidRequestError(f"[lora] strength {value} is not a finite number")
        found.append((_arguments.path("lora", path), value))
    return found


def _wholes(where: str, name: str, values: Any) -> list[int] | None:
    if values is None:
        return None
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        _arguments.refuse(where, name, "a list of whole numbers", values)
    found = [_arguments.whole(where, name, value) for value in values]
    if any(abs(number) > _MOST_BLOCKS for number in found):
        raise InvalidRequestError(f"[{where}] {name} holds numbers that no block has")
    return found


def _one_of(names: list[str]) -> Callable[[str, str, Any], str | None]:
    def read(where: str, name: str, value: Any) -> str | None:
        return None if value is None else _arguments.instance(where, name, value, str, f"one of {', '.join(names)}")

    return read


def _flag(where: str, name: str, value: Any) -> bool | None:
    return None if value is None else _arguments.instance(where, name, value, bool, "True or False")


_READ: dict[str, Callable[[str, str, Any], Any]] = {
    "width": _arguments.integer,
    "height": _arguments.integer,
    "num_frames": _arguments.integer,
    "frame_rate": _arguments.number,
    "num_inference_steps": _arguments.integer,
    "sigmas": _arguments.numbers,
    "seed": _arguments.integer,
    "preset": _one_of(_core.presets),
    "sampler": _one_of(_core.samplers),
    "audio": _flag,
    "guidance_scale": _arguments.number,
    "audio_guidance_scale": _arguments.number,
    "stg_scale": _arguments.number,
    "audio_stg_scale": _arguments.number,
    "stg_blocks": _wholes,
    "modality_scale": _arguments.number,
    "audio_modality_scale": _arguments.number,
    "guidance_rescale": _arguments.number,
    "audio_guidance_rescale": _arguments.number,
    "guidance_skip_steps": _arguments.integer,
    "audio_guidance_skip_steps": _arguments.integer,
    "guidance_interval": _arguments.numbers,
    "guidance_method": _one_of(_core.guidance_methods),
    "apg_eta": _arguments.number,
    "apg_threshold": _arguments.number,
    "recipe": _one_of(_core.recipes),
    "upscaler": _files,
    "loras": _loras,
    "loras_stage2": _loras,
    "distilled_lora": _file,
}
_CORE_NAMES = {"upscaler": "upscalers", "loras_stage2": "second_loras"}
NAMES = tuple(_READ)


def settled(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options as plain numbers, texts and lists, without those that are None.

    To be called once, where options come in: iterators can be read but once, and files may be relative to a folder that
    changes. What comes out may go in again.

    Raises InvalidRequestError for values of another kind, TypeError for names that there are not.
    """
    if unknown := given.keys() - _READ.keys():
        raise TypeError(f"there is no option {', '.join(sorted(unknown))}; use {', '.join(_READ)}")
    return {name: read("sample", name, given[name]) for name, read in _READ.items() if given.get(name) is not None}


def core_options(given: Mapping[str, Any]) -> _core.SampleOptions:
    """Returns options as the core takes them. Raises as :func:`settled`."""
    return _core.SampleOptions(
        **{_CORE_NAMES.get(name, name): _raw(name, value) for name, value in settled(given).items()}
    )


def _raw(name: str, value: Any) -> Any:
    """Paths as the core takes them."""
    if name in ("loras", "loras_stage2"):
        return [(_arguments.raw(path), strength) for path, strength in value]
    if name == "upscaler":
        return [_arguments.raw(path) for path in value]
    return _arguments.raw(value) if name == "distilled_lora" else value


def listed_loras(given: Any) -> list[list[Any]]:
    """Returns LoRAs as a clip remembers them: paths and strengths."""
    return [list(one) for one in _loras("lora", "loras", given) or ()]


def recipes() -> list[dict[str, Any]]:
    """Returns the ways to make a clip: name, purpose, distilled (whether made for such a checkpoint), stages, needs."""
    return _core.recipe_table()
