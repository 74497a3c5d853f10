"""Whole clips by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from captions import caption
from scenes import FPS, FRAMES, Scene, render_pictures, sample_scene
from sounds import render_sound


@dataclass
class Clip:
    """Pictures uint8 (frames, height, width, 3), wave float32 at 16 kHz, and what they show."""

    pictures: np.ndarray
    wave: np.ndarray
    caption: str
    scene: Scene


def make_clip(seed: int) -> Clip:
    """The same for the same seed."""
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    pictures = render_pictures(scene, rng)
    return Clip(pictures, render_sound(scene, FRAMES / FPS), caption(scene, rng), scene)
