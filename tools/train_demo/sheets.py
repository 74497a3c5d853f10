"""Contact sheets: some frames of each clip under its prompt, with the loudest frequencies of its sound beneath."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scenes import SIZE

if TYPE_CHECKING:
    from evaluate import Prompt

FRAMES, TEXT, SOUND, GAP = 5, 26, 24, 8  # frames of a clip; heights and distance in pixels


def spectrogram(wave: np.ndarray, rate: int, width: int, height: int = SOUND) -> np.ndarray:
    """uint8 (height, width): 0 to 2 kHz from the bottom to the top, brighter where it is louder."""
    length = rate // 20
    starts = np.linspace(0, max(0, len(wave) - length), width).astype(int)
    windows = np.stack([wave[start : start + length] for start in starts]) * np.hanning(length)
    bands = np.abs(np.fft.rfft(windows))[:, : 2000 * length // rate]
    edges = np.linspace(0, bands.shape[1], height + 1).astype(int)
    rows = np.stack([bands[:, a : max(b, a + 1)].max(1) for a, b in pairwise(edges)])[::-1]
    decibels = 20 * np.log10(rows / (length / 8) + 1e-6)
    return np.clip((decibels + 50) * 5, 0, 255).astype(np.uint8)


def strip(frames: np.ndarray, wave: np.ndarray | None, rate: int) -> np.ndarray:
    """uint8 (SIZE + SOUND, FRAMES * SIZE, 3)."""
    chosen = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
    pictures = np.concatenate([frames[k] for k in chosen], 1)
    sound = np.zeros((SOUND, pictures.shape[1]), np.uint8)
    if wave is not None:
        sound = spectrogram(wave, rate, pictures.shape[1])
    return np.concatenate([pictures, np.repeat(sound[..., None], 3, 2)])


def write(pipe: Any, wanted: list[Prompt], path: Path, columns: int = 2) -> None:
    """Makes the clips and a PNG of them."""
    width, height = FRAMES * SIZE, TEXT + SIZE + SOUND + GAP
    rows = -(-len(wanted) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * height - GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, prompt in enumerate(wanted):
        video = pipe.generate(prompt.text, seed=prompt.seed)
        wave = None if video.audio is None else np.asarray(video.audio).mean(0)
        x, y = i % columns * (width + GAP), i // columns * height
        draw.text((x, y), textwrap.fill(prompt.text, 105), fill="black")
        sheet.paste(Image.fromarray(strip(np.asarray(video.frames), wave, video.sample_rate or 1)), (x, y + TEXT))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
