"""Steps of denoising at the real widths, and what they take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import sdltx

_T = TypeVar("_T")


def sizes(text: str) -> dict[str, int]:
    """Options of a clip of WIDTHxHEIGHTxFRAMES."""
    return dict(zip(("width", "height", "num_frames"), map(int, text.split("x")), strict=True))


def sample(
    pipe: sdltx.Pipeline, size: str, rows: int, steps: int, look: Callable[[], _T]
) -> tuple[sdltx.Latents, list[tuple[float, _T]]]:
    """Makes steps with random contexts of so many rows; returns the latents, and time and look() after each step.

    The first entry is that of the first step, which also reads and lays out what the later ones find ready.
    """
    rng = np.random.default_rng(0)
    context = sdltx.Context(
        rng.standard_normal((rows, 4096), np.float32) * np.float32(0.1),
        rng.standard_normal((rows, 2048), np.float32) * np.float32(0.1),
    )
    seen: list[tuple[float, _T]] = []
    sigmas = [1 - i / steps for i in range(steps)] + [0]
    given: dict[str, Any] = {**sizes(size), "seed": 1, "sigmas": sigmas, "preset": "distilled"}
    latents = pipe.sample(context, **given, on_step=lambda *_: seen.append((time.monotonic(), look())))
    return latents, seen


def seconds(seen: list[tuple[float, Any]]) -> list[float]:
    """Of each step but the first."""
    return [b[0] - a[0] for a, b in itertools.pairwise(seen)]


def counted(path: str, name: str) -> int:
    """The first number of the line of a file of /proc that begins with ``name``."""
    lines = Path(path).read_text().splitlines()
    return int(next(line for line in lines if line.strip().startswith(name)).split(":")[1].split()[0])
