"""What programs for diffusers ask a pipeline (``pipe``, a :class:`sdltx.Pipeline`) for, in its terms."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _arguments
from .errors import InvalidRequestError
from .options import NAMES
from .request import Request

if TYPE_CHECKING:
    from .values import Latents, Video

_TYPES = ("np", "pil", "latent")
_TIMESTEPS = 1000  # of noise level 1
_MOST = 10_000
_ADVICE = {
    "to": 'give it when the model is opened: sdltx.load(..., device="cuda0")',
    "cuda": 'give it when the model is opened: sdltx.load(..., device="cuda0")',
    "enable_model_cpu_offload": "what fits stays and the rest passes through by itself; see offload of sdltx.load()",
    "enable_sequential_cpu_offload": 'that is sdltx.load(..., offload="blocks"); by itself what fits stays',
    "enable_vae_tiling": "tiles are used by itself; see tiling of generate()",
    "load_lora_weights": "they are an option of a clip: generate(..., loras=[(path, 0.8)])",
    "set_adapters": "they are an option of a clip: generate(..., loras=[(path, 0.8)])",
    "fuse_lora": "they are an option of a clip: generate(..., loras=[(path, 0.8)])",
    "from_pretrained": 'use sdltx.load("ltx-2.3-distilled:q4_k_m") or with the names of files',
    "encode_prompt": "it is encode()",
    "upscale": "it is upsample(), or the option upscaler of a clip",
}


@dataclass(frozen=True)
class Output:
    """Clips as diffusers gives them."""

    frames: list[Any]
    """Of each clip."""
    audio: list[Any]
    """Of each clip float32 (channels, n), or None."""
    sample_rate: int | None
    """Of the sound, in Hz."""


def advice(name: str) -> str:
    """Returns what to do in the place of a method that there is not."""
    return f"; {_ADVICE[name]}" if name in _ADVICE else ""


def call(
    pipe: Any,
    prompt: Any,
    generator: Any,
    number: int,
    output_type: str | None,
    on_step_end: Callable[[Any, int, float, dict[str, Any]], object] | None,
    arguments: dict[str, Any],
) -> Any:
    """Is :meth:`Pipeline.__call__`."""
    if output_type is not None and output_type not in _TYPES:
        raise InvalidRequestError(f"[call] output_type {output_type!r} is unknown; use None, {', '.join(_TYPES)}")
    _arguments.callback("call", "callback_on_step_end", on_step_end)
    count = _arguments.whole("call", "num_videos_per_prompt", number)
    if not 1 <= count <= _MOST:
        raise InvalidRequestError(f"[call] num_videos_per_prompt {count} is out of range; use 1 to {_MOST}")
    if generator is not None:
        if arguments.get("seed") is not None:
            raise InvalidRequestError("[call] generator and seed are two ways to say the same; give one of them")
        arguments["seed"] = seed_of(generator)
    alone = isinstance(prompt, (str, Request))
    if not alone and (not isinstance(prompt, Iterable) or isinstance(prompt, (bytes, Mapping))):
        _arguments.refuse("encode", "prompt", "text, a Request, or a list of them", prompt)
    if output_type is not None and arguments.get("return_exceptions"):
        raise InvalidRequestError("[call] with an output_type there is no place for exceptions; use generate()")
    requests = _requests(pipe, [prompt] if alone else list(prompt), count, arguments)
    if on_step_end is not None:
        if arguments.get("on_step") is not None:
            raise InvalidRequestError("[call] callback_on_step_end and on_step are the same; give one of them")
        arguments["on_step"] = _on_step(pipe, requests, arguments, on_step_end)
    arguments.pop("seed", None)  # the requests have theirs
    if alone and count == 1 and output_type is None:
        return pipe.generate(requests[0], **arguments)
    if output_type == "latent":
        return Output([_latents(pipe, one, arguments) for one in requests], [None] * len(requests), None)
    videos: list[Video] = pipe.generate(requests, **arguments)
    if output_type is None:
        return videos
    return Output(
        [_frames(video, output_type) for video in videos],
        [video.audio for video in videos],
        next((video.sample_rate for video in videos if video.sample_rate), None),
    )


def seed_of(generator: Any) -> int:
    """Returns the seed of a number or a generator; of one of NumPy the next number that it draws."""
    if isinstance(generator, (list, tuple)) and len(generator) == 1:
        (generator,) = generator
    if callable(told := getattr(generator, "initial_seed", None)):  # PyTorch's
        return int(told()) % 2**63
    if callable(drawn := getattr(generator, "integers", None)):  # NumPy's
        return int(drawn(2**63 - 1))
    try:
        return operator.index(generator)
    except TypeError:
        _arguments.refuse("call", "generator", "a number, or a generator of NumPy or PyTorch", generator)


def _requests(pipe: Any, prompts: list[Any], count: int, arguments: dict[str, Any]) -> list[Request]:
    """Requests of all prompts, with seeds that follow each other where there are several."""
    seed = arguments.get("seed")
    given = {} if seed is None else {"seed": seed}
    firsts = [Request.of(one, given) for one in prompts]
    if count == 1 and (len(firsts) == 1 or seed is None):
        return firsts
    requests = []
    for number, first in enumerate(firsts):
        start = pipe.resolve(first).seed + (number * count if seed is not None else 0)
        requests += [first.replaced(seed=(start + copy) % 2**63) for copy in range(count)]
    return requests


def _latents(pipe: Any, request: Request, arguments: dict[str, Any]) -> Latents:
    from .jobs import SampledJob

    on_step, progress = arguments.get("on_step"), arguments.get("progress")
    more = {name: value for name, value in arguments.items() if name not in ("on_step", "progress", "seed")}
    job = SampledJob(Request.of(request, more), on_step)
    pipe.run([job], progress=progress)
    if job.error is not None:
        raise job.error
    assert job.latents is not None
    return job.latents


def _frames(video: Video, output_type: str) -> Any:
    if output_type == "pil":
        return video.to_pil()
    import numpy as np

    return video.frames.astype(np.float32) / 255


def _on_step(pipe: Any, requests: list[Request], arguments: dict[str, Any], callback: Callable[..., object]) -> Any:
    """Tells a callback of diffusers what on_step() hears; clips are denoised one after the other."""
    known = {name: value for name, value in arguments.items() if name in NAMES and value is not None and name != "seed"}
    plans = [pipe.resolve(one, **known) for one in requests]
    levels = [float(sigma) for plan in plans for stage in plan.stages for sigma in stage["sigmas"][:-1]]
    starts = list(itertools.accumulate((sum(len(s["sigmas"]) - 1 for s in plan.stages) for plan in plans), initial=0))
    calls = itertools.count()

    def on_step(_done: int, _steps: int, estimate: Latents) -> None:
        step = next(calls)
        first = max(start for start in starts if start <= step)  # of its clip
        callback(pipe, step - first, levels[step] * _TIMESTEPS if step < len(levels) else 0.0, {"latents": estimate})

    return on_step
