"""Scenes of the demo model's world, and their pictures.

A clip has 25 frames of 128x128 at 12 per second. A scene fixes what a caption can say: for each shape its colour, kind,
size and motion, the background, the sound. What it leaves open (where a shape starts, how fast it is) is drawn from the
same random numbers, so a seed gives one clip, always the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

SIZE, FRAMES, FPS = 128, 25, 12.0

COLOURS = {
    "red": (226, 38, 44),
    "orange": (252, 140, 20),
    "yellow": (248, 226, 40),
    "green": (44, 190, 62),
    "cyan": (44, 222, 232),
    "blue": (46, 92, 244),
    "purple": (162, 60, 222),
    "white": (246, 246, 246),
}
SHAPES = ("circle", "square", "triangle", "star")
RADII = {"small": (15, 17), "medium": (21, 25), "large": (30, 34)}
DIRECTIONS = ("right", "left", "up", "down")
MOTIONS = (*DIRECTIONS, "still", "bounce", "grow", "shrink")
FLAT = {
    "dark": (18, 18, 24),
    "gray": (104, 106, 110),
    "light": (214, 214, 220),
    "navy": (18, 30, 92),
    "forest": (16, 66, 36),
}
BACKGROUNDS = (*FLAT, "dusk")
SOUNDS = (
    "low_tone",
    "mid_tone",
    "high_tone",
    "low_beep",
    "mid_beep",
    "high_beep",
    "rising",
    "falling",
    "click",
    "silence",
)
# Colours that cannot be told from the background.
UNREADABLE = {
    ("white", "light"),
    ("yellow", "light"),
    ("blue", "navy"),
    ("green", "forest"),
    ("cyan", "light"),
    ("purple", "dusk"),
}


@dataclass
class Item:
    """A shape."""

    colour: str
    shape: str
    size: str
    motion: str
    size_said: bool = True


@dataclass
class Scene:
    """What a clip shows, and what of it its caption says."""

    items: list[Item]
    background: str
    sound: str
    background_said: bool = True
    sound_said: bool = True
    hits: list[float] = field(default_factory=list)
    """Seconds at which a bouncing shape is at its lowest; known once the pictures are drawn."""


T = TypeVar("T")


def pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    """One of them, each as likely."""
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: np.random.Generator, two: float = 0.12) -> Scene:
    """A random scene, with two shapes in a share `two` of all cases."""
    background = pick(rng, BACKGROUNDS)

    def item() -> Item:
        while True:
            colour = pick(rng, tuple(COLOURS))
            if (colour, background) not in UNREADABLE:
                break
        said = rng.random() < 0.5
        size = pick(rng, tuple(RADII)) if said else "medium"
        motion = pick(rng, MOTIONS)
        return Item(colour, pick(rng, SHAPES), size, motion, said)

    items = [item()]
    if rng.random() < two:
        other = item()
        while other.colour == items[0].colour:
            other = item()
        items.append(other)
        for one in items:
            one.size, one.size_said = "medium", False
            if one.motion in ("bounce", "grow", "shrink"):
                one.motion = pick(rng, ("right", "left", "still"))
        if other.motion != items[0].motion and rng.random() < 0.5:
            other.motion = items[0].motion
    clicks = items[0].motion == "bounce" and rng.random() < 0.6
    sound = "click" if clicks else pick(rng, (*SOUNDS[:8], "silence"))
    said = not (sound in ("silence", "click") and rng.random() < 0.5)
    return Scene(items, background, sound, background_said=rng.random() < 0.8, sound_said=said)


def background_image(name: str, size: int = SIZE) -> np.ndarray:
    """float32 (size, size, 3), 0 to 255."""
    if name in FLAT:
        return np.broadcast_to(np.array(FLAT[name], np.float32), (size, size, 3)).copy()
    top, bottom = np.array((28, 22, 66), np.float32), np.array((150, 66, 96), np.float32)
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top * (1 - ramp) + bottom * ramp, (size, size, 3)).copy()


def depth_inside(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """How far inside a shape of radius r around the origin a point is, negative outside; y points down."""
    if shape == "circle":
        return r - np.hypot(x, y)
    if shape == "square":
        return 0.86 * r - np.maximum(np.abs(x), np.abs(y))
    if shape == "triangle":
        y = y - 0.12 * r
        return 0.55 * r - np.maximum(y, np.maximum(0.8660254 * x - 0.5 * y, -0.8660254 * x - 0.5 * y))
    sector = 2 * math.pi / 5
    outer, inner = 1.15 * r, 0.45 * r
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
    distance = np.hypot(x, y)
    px, py = distance * np.cos(angle), distance * np.sin(angle)
    ex, ey = inner * math.cos(sector / 2) - outer, inner * math.sin(sector / 2)
    return ((px - outer) * ey - py * ex) / -math.hypot(ex, ey)


def draw(frame: np.ndarray, shape: str, colour: tuple[int, int, int], x: float, y: float, r: float) -> None:
    """Puts a shape with smooth edges into a frame."""
    size = frame.shape[0]
    pad = int(r * 1.25) + 3
    x0, x1 = max(0, int(x) - pad), min(size, int(x) + pad + 1)
    y0, y1 = max(0, int(y) - pad), min(size, int(y) + pad + 1)
    if x0 >= x1 or y0 >= y1:
        return
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    cover = np.clip(depth_inside(shape, columns - x, rows - y, r) + 0.5, 0, 1)[..., None]
    frame[y0:y1, x0:x1] = frame[y0:y1, x0:x1] * (1 - cover) + np.array(colour, np.float32) * cover


def track_of(
    item: Item, rng: np.random.Generator, frames: int = FRAMES, size: int = SIZE, lane: int | None = None
) -> tuple[np.ndarray, list[float]]:
    """(x, y, radius) of each frame, and the seconds at which it is lowest. lane: 0 the upper half, 1 the lower."""
    r = float(rng.uniform(*RADII[item.size]))
    t = np.arange(frames) / max(1, FRAMES - 1)
    ys = (r + 6, size - r - 6)
    if lane is not None:
        r = float(rng.uniform(17, 19))
        ys = (r + 6, size / 2 - r - 2) if lane == 0 else (size / 2 + r + 2, size - r - 6)
    xs = (r + 6, size - r - 6)
    x0, y0 = float(rng.uniform(*xs)), float(rng.uniform(*ys))
    x, y, radius = np.full(frames, x0), np.full(frames, y0), np.full(frames, r)
    hits: list[float] = []
    travel = float(rng.uniform(42, 66))
    if item.motion in ("right", "left"):
        travel = min(travel, xs[1] - xs[0])
        start = float(rng.uniform(xs[0], xs[1] - travel))
        x = start + travel * (t if item.motion == "right" else 1 - t)
    elif item.motion in ("up", "down"):
        travel = min(travel, ys[1] - ys[0])
        start = float(rng.uniform(ys[0], ys[1] - travel))
        y = start + travel * (t if item.motion == "down" else 1 - t)
    elif item.motion == "bounce":
        period = float(rng.choice((0.5, 0.6, 0.7)))
        phase = float(rng.integers(0, round(period * 100))) / 100 / period
        height = min(float(rng.uniform(36, 56)), ys[1] - ys[0])
        floor = float(rng.uniform(max(ys[0] + height, ys[1] - 12), ys[1]))
        u = (np.arange(frames) / FPS / period + phase) % 1.0
        y = floor - height * 4 * u * (1 - u)
        k = math.ceil(phase - 1e-9)
        while (k - phase) * period < frames / FPS:
            hits.append(round((k - phase) * period, 2))
            k += 1
    elif item.motion in ("grow", "shrink"):
        big = {"small": 22, "medium": 31, "large": 39}[item.size]
        low = float(rng.uniform(6, 9))
        high = float(rng.uniform(big - 2, big + 2))
        radius = low + (high - low) * (t if item.motion == "grow" else 1 - t)
        x = np.full(frames, float(rng.uniform(high + 4, size - high - 4)))
        y = np.full(frames, float(rng.uniform(high + 4, size - high - 4)))
    return np.stack([x, y, radius], 1), hits


def tracks_of(scene: Scene, rng: np.random.Generator, frames: int = FRAMES, size: int = SIZE) -> list[np.ndarray]:
    """Those of all shapes; fills scene.hits."""
    several = len(scene.items) > 1
    found = [track_of(item, rng, frames, size, k if several else None) for k, item in enumerate(scene.items)]
    scene.hits = [hit for _, hits in found for hit in hits]
    return [track for track, _ in found]


def render_pictures(scene: Scene, rng: np.random.Generator, frames: int = FRAMES, size: int = SIZE) -> np.ndarray:
    """uint8 (frames, size, size, 3); fills scene.hits."""
    base, tracks = background_image(scene.background, size), tracks_of(scene, rng, frames, size)
    pictures = np.empty((frames, size, size, 3), np.uint8)
    for k in range(frames):
        frame = base.copy()
        for item, track in zip(scene.items, tracks, strict=True):
            draw(frame, item.shape, COLOURS[item.colour], *track[k])
        pictures[k] = np.clip(np.rint(frame), 0, 255)
    return pictures
