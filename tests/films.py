"""Sounds, films and masks that tests make clips from."""

from __future__ import annotations

import numpy as np

import sdltx

RATE = 44100


def wave(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([np.sin(2000 * t), np.sin(900 * t * (1 + t))]).astype(np.float32) * 0.4


def film(frames: int = 33, height: int = 64, width: int = 96, sound: bool = True) -> sdltx.Video:
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    if not sound:
        return sdltx.Video(pictures, frame_rate=24)
    return sdltx.Video(pictures, wave(frames / 24), RATE, 24)


def masked(frames=33, rows=slice(0, 32), columns=slice(32, 96)) -> np.ndarray:
    mask = np.zeros((frames, 64, 96, 3), np.uint8)
    mask[:, rows, columns] = 255
    return mask
