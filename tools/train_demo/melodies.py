"""Sounds that the audio stages train on: those of scenes, and some that no caption has."""

from __future__ import annotations

import numpy as np
from scenes import FPS, FRAMES, Scene, sample_scene, tracks_of
from sounds import HIGH_RATE, LOW_RATE, PARTIALS, partials, render_sound

SECONDS = FRAMES / FPS
LOW_LIMIT, HIGH_LIMIT = 7700, 20000  # Hz


def melody(rng: np.random.Generator, rate: int, limit: float) -> np.ndarray:
    """Random notes on the grid of 100 Hz and 10 ms, float32."""
    n = round(SECONDS * rate)
    t, wave, at = np.arange(n) / rate, np.zeros(n), 0
    while at < n:
        length = int(rng.integers(6, 60)) * rate // 100
        if rng.random() < 0.75:
            pitch = 100.0 * int(rng.integers(1, 21))
            timbre = PARTIALS[("low", "mid", "high")[int(rng.integers(3))]]
            part = t[at : at + length]
            place = np.arange(len(part))
            edges = np.minimum(1, np.minimum(place, place[::-1]) / (0.01 * rate))
            wave[at : at + length] = partials(pitch, timbre, part, limit) * edges * float(rng.uniform(0.5, 1.0))
        at += length
    return wave.astype(np.float32)


def waves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One sound at 16 and at 48 kHz."""
    rng = np.random.default_rng(seed)
    kind = rng.random()
    if kind < 0.25:
        state = rng.bit_generator.state
        low = melody(rng, LOW_RATE, LOW_LIMIT)
        rng.bit_generator.state = state
        return low, melody(rng, HIGH_RATE, HIGH_LIMIT)
    if kind < 0.4:
        hits = sorted(rng.choice(200, size=int(rng.integers(2, 6)), replace=False) / 100)
        scene = Scene([], "dark", "click", hits=list(hits))
    else:
        scene = sample_scene(rng)
        tracks_of(scene, rng)
    return (
        render_sound(scene, SECONDS, LOW_RATE, LOW_LIMIT),
        render_sound(scene, SECONDS, HIGH_RATE, HIGH_LIMIT),
    )
