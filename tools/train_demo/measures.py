"""Reads a clip back: background, colour, shape, motion, sound. Nothing of it is learned."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scenes import BACKGROUNDS, COLOURS, FPS, SHAPES, background_image, depth_inside

MASK = 48  # how far from the background a pixel of a shape is, of 255
# Area of a shape of radius 1.
AREAS = {
    "circle": np.pi,
    "square": (2 * 0.86) ** 2,
    "triangle": 3 * np.sqrt(3) * 0.55**2,
    "star": 5 * 1.15 * 0.45 * np.sin(np.pi / 5),
}


@dataclass
class Reading:
    """Names as in scenes.py, "none" for what was not found."""

    background: str
    colour: str
    shape: str
    overlap: float
    """Intersection over union of the shape that was named with what is seen."""
    motion: str
    sound: str
    masks: np.ndarray
    """bool (frames, height, width): where the shape is."""

    @property
    def pitch(self) -> str:
        """low, mid, high, rising, falling, click or silence."""
        return self.sound.split("_")[0]


@cache
def _backdrop(name: str) -> np.ndarray:
    return background_image(name)


def background_of(pictures: np.ndarray) -> str:
    """From the rim of the median picture."""
    middle = np.median(pictures.astype(np.float32), 0)
    rim = np.ones(middle.shape[:2], bool)
    rim[5:-5, 5:-5] = False
    return min(BACKGROUNDS, key=lambda name: float(np.abs(middle[rim] - _backdrop(name)[rim]).mean()))


def masks_of(pictures: np.ndarray, background: str) -> np.ndarray:
    """Where pictures are not the background."""
    return np.abs(pictures.astype(np.float32) - _backdrop(background)).max(-1) > MASK


def colour_of(pictures: np.ndarray, masks: np.ndarray) -> str:
    """From the median of what is not at the edge of the shape."""
    core = masks.copy()
    for axis in (1, 2):
        for way in (1, -1):
            core &= np.roll(masks, way, axis)
    pixels = pictures[core] if core.sum() > 30 else pictures[masks]
    if len(pixels) == 0:
        return "none"
    middle = np.median(pixels.astype(np.float32), 0)
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - middle).sum()))


def _overlap(shape: str, mask: np.ndarray) -> float:
    """Of the best placed template of the mask's area."""
    rows, columns = np.nonzero(mask)
    y, x, area = rows.mean(), columns.mean(), len(rows)
    down, right = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    best = 0.0
    for scale in (0.94, 1.0, 1.06):
        r = np.sqrt(area / AREAS[shape]) * scale
        top = y - (0.12 * r if shape == "triangle" else 0)
        for shift in (-1.5, 0, 1.5):
            template = depth_inside(shape, right - x, down - top - shift, r) > 0
            best = max(best, float((template & mask).sum() / max(1, (template | mask).sum())))
    return best


def shape_of(masks: np.ndarray) -> tuple[str, float]:
    """The shape whose templates fit three of the frames in which it is largest, and how well they do."""
    areas = masks.sum((1, 2))
    if areas.max() < 40:
        return "none", 0.0
    order = np.argsort(-areas, kind="stable")
    frames = [k for k in order[[0, len(areas) // 4, len(areas) // 2]] if areas[k] >= 40]
    fits = {shape: float(np.mean([_overlap(shape, masks[k]) for k in frames])) for shape in SHAPES}
    name = max(fits, key=lambda shape: fits[shape])
    return name, fits[name]


def motion_of(masks: np.ndarray) -> str:
    """From how the area changes, then from where the centre goes."""
    areas = masks.sum((1, 2)).astype(float)
    n = len(masks)
    centres = np.array([np.argwhere(mask).mean(0) if mask.sum() > 8 else (np.nan, np.nan) for mask in masks])
    seen = np.flatnonzero(~np.isnan(centres[:, 0]))
    if areas.max() < 30 or len(seen) < n // 2:
        return "none"
    y, x = (np.interp(np.arange(n), seen, centres[seen, axis]) for axis in (0, 1))
    ends = max(2, n // 8)
    growth = (areas[-ends:].mean() + 5) / (areas[:ends].mean() + 5)
    if growth > 2.2:
        return "grow"
    if growth < 1 / 2.2:
        return "shrink"
    dx, dy = (float(v[-ends:].mean() - v[:ends].mean()) for v in (x, y))
    smooth = np.convolve(np.pad(y, 1, mode="edge"), np.ones(3) / 3, "valid")
    height = float(np.ptp(smooth))
    if height > 16 and np.abs(np.diff(smooth)).sum() > 1.6 * max(abs(dy), height):
        return "bounce"
    if max(abs(dx), abs(dy)) < 10:
        return "still"
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "down" if dy > 0 else "up"


def bounce_times(masks: np.ndarray) -> list[float]:
    """Seconds at which the shape is at its lowest."""
    y = np.array([np.nonzero(mask)[0].mean() if mask.sum() > 8 else np.nan for mask in masks])
    return [k / FPS for k in range(1, len(y) - 1) if y[k - 1] <= y[k] > y[k + 1] and y[k] > np.nanmedian(y)]


def _loudness(wave: np.ndarray, rate: int) -> np.ndarray:
    """Root mean square of each 10 ms."""
    step = rate // 100
    return np.sqrt((wave[: len(wave) // step * step].reshape(-1, step) ** 2).mean(1) + 1e-12)


def click_times(wave: np.ndarray, rate: int) -> list[float]:
    """Seconds at which it suddenly becomes loud."""
    loud = _loudness(wave, rate)
    found: list[float] = []
    for k, value in enumerate(loud):
        before = loud[k - 1] if k else 0.0
        sudden = value > 0.35 * loud.max() and value > 1.8 * before + 1e-3
        if sudden and (not found or k * 0.01 - found[-1] > 0.12):
            found.append(k * 0.01)
    return found


def _pitches(wave: np.ndarray, rate: int) -> np.ndarray:
    """Loudest frequency of every window of 64 ms that is not quiet."""
    length, hop = int(0.064 * rate), int(0.02 * rate)
    windows = np.lib.stride_tricks.sliding_window_view(wave, length)[::hop] * np.hanning(length)
    spectrum, frequencies = np.abs(np.fft.rfft(windows)), np.fft.rfftfreq(length, 1 / rate)
    band = (frequencies > 80) & (frequencies < 4000)
    energy = np.sqrt((spectrum[:, band] ** 2).sum(1))
    loud = energy > 0.25 * np.percentile(energy, 95)
    return frequencies[band][spectrum[loud][:, band].argmax(1)]


def sound_of(wave: np.ndarray, rate: int) -> str:
    """From loudness, how much of the time it is loud, and the loudest frequencies. wave: mono, 1 to -1."""
    if np.sqrt((wave**2).mean()) < 0.008:
        return "silence"
    loud = _loudness(wave, rate)
    share = float((loud > 0.3 * np.percentile(loud, 95)).mean())
    if np.percentile(loud, 50) < 0.15 * loud.max() and share < 0.45:
        return "click"
    pitches = _pitches(wave, rate)
    ends = max(2, len(pitches) // 5)
    first, last = np.median(pitches[:ends]), np.median(pitches[-ends:])
    if np.ptp(pitches) > 350 and abs(last - first) > 350:
        return "rising" if last > first else "falling"
    middle = np.median(pitches)
    pitch = "low" if middle < 350 else "mid" if middle < 900 else "high"
    return f"{pitch}_{'beep' if share < 0.82 else 'tone'}"


def read_clip(pictures: np.ndarray, wave: np.ndarray, rate: int) -> Reading:
    """pictures: uint8 (frames, height, width, 3); wave: mono float."""
    background = background_of(pictures)
    masks = masks_of(pictures, background)
    shape, overlap = shape_of(masks)
    return Reading(
        background, colour_of(pictures, masks), shape, overlap, motion_of(masks), sound_of(wave, rate), masks
    )
