"""What training and sampling of the transformer share: positions, noise levels, latents in the model's units."""

from __future__ import annotations

from typing import Any

import reference as ltx
import torch
from scenes import FPS

VIDEO, AUDIO = ltx.VideoLatentPatchifier(1), ltx.AudioPatchifier(1)


def positions(
    batch: int, video: tuple[int, int, int, int], audio: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the tokens of latents: video (channels, frames, rows, columns), audio (channels, frames, bins)."""
    v = ltx.VideoLatentTools(VIDEO, ltx.VideoLatentShape(1, *video), FPS)
    a = ltx.AudioLatentTools(AUDIO, ltx.AudioLatentShape(1, *audio))
    return tuple(
        tools.create_initial_state("cpu", torch.float32).positions.expand(batch, -1, -1, -1) for tools in (v, a)
    )


def cache_rotations(dit: Any) -> None:
    """They depend on shapes alone: each is computed once."""

    def cached(original: Any) -> Any:
        known: dict[Any, Any] = {}

        def prepare(**given: Any) -> Any:
            key = (tuple(given["positions"].shape), given["inner_dim"], tuple(given["max_pos"]), given["x_dtype"])
            if key not in known:
                known[key] = original(**given)
            return known[key]

        return prepare

    for preprocessor in (dit.video_args_preprocessor, dit.audio_args_preprocessor):
        simple = preprocessor.simple_preprocessor
        simple._prepare_positional_embeddings = cached(simple._prepare_positional_embeddings)


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel, x (clips, channels, ...); channels that hardly vary are not blown up."""
    flat = x.transpose(0, 1).flatten(1)
    mean, std = flat.mean(1), flat.std(1)
    return mean, std.clamp(min=0.25 * float(std.median()))


def audio_rows(x: torch.Tensor) -> torch.Tensor:
    """(clips, channels, frames, bins) -> (clips, frames, channels x bins), which are the tokens."""
    return x.permute(0, 2, 1, 3).flatten(2)


def noise_levels(n: int, generator: torch.Generator) -> torch.Tensor:
    """A mixture: logit-normal around high noise, uniform, and some close to nothing but noise."""
    kind = torch.rand(n, generator=generator)
    normal = torch.sigmoid(torch.randn(n, generator=generator) + 0.8)
    uniform = torch.rand(n, generator=generator)
    high = 1 - 0.12 * torch.rand(n, generator=generator) ** 2
    return torch.where(kind < 0.55, normal, torch.where(kind < 0.82, uniform, high)).clamp(1e-3, 1.0)
