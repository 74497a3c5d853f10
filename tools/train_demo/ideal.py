"""The clip that a sampled one means: its shape redrawn, faultless, where it is seen.

Latents that were sampled have no clip of their own which their pictures could be compared with. Their prompt says what
should be there, and the pictures, dented as they are, where it is and how large.
"""

from __future__ import annotations

import numpy as np
from measures import AREAS, background_of, masks_of
from scenes import COLOURS, SIZE, Item, Scene, background_image, draw

FARTHEST = 3.0  # pixels, root mean square, that centres may be off a path of the scene's kind
LEAST_OVERLAP = 0.5
LEAST_RADIUS = 6.0  # of what grows, when it begins


def cover_of(pictures: np.ndarray, background: str, colour: str) -> np.ndarray:
    """float32 (frames, height, width), 0 to 1: how far each pixel is from the background to the colour."""
    base = background_image(background)
    way = np.array(COLOURS[colour], np.float32) - base
    along = ((pictures.astype(np.float32) - base) * way).sum(-1) / (way**2).sum(-1)
    return np.clip(along, 0, 1)


def _seen(cover: np.ndarray, shape: str) -> tuple[float, float, float]:
    """x, y and radius in one frame; what lies apart from the shape does not count. Not a number where none is."""
    rows, columns = np.mgrid[: cover.shape[0], : cover.shape[1]].astype(np.float32)
    near = np.ones_like(cover)
    x = y = r = float("nan")
    for _ in range(3):
        weight = np.where(cover > 0.2, cover, 0) * near
        area = float(weight.sum())
        if area < 30:
            return float("nan"), float("nan"), float("nan")
        x, y, r = (
            float((weight * columns).sum() / area),
            float((weight * rows).sum() / area),
            (area / AREAS[shape]) ** 0.5,
        )
        near = (np.hypot(columns - x, rows - y) < 1.5 * r + 2).astype(np.float32)
    return x, y - (0.12 * r if shape == "triangle" else 0), r


def _line(values: np.ndarray, seen: np.ndarray, degree: int) -> np.ndarray:
    t = np.arange(len(values))
    if degree == 0:
        return np.full(len(values), np.median(values[seen]))
    return np.polyval(np.polyfit(t[seen], values[seen], degree), t)


def track_seen(cover: np.ndarray, item: Item) -> np.ndarray | None:
    """(x, y, radius) of each frame, on a path as its motion has one; None where what is seen does not keep to one."""
    found = np.array([_seen(frame, item.shape) for frame in cover])
    seen = ~np.isnan(found[:, 0])
    if seen.sum() < len(cover) // 2:
        return None
    x, y, r = (found[:, k] for k in range(3))
    across, along = item.motion in ("right", "left"), item.motion in ("up", "down")
    fit_x, fit_r = _line(x, seen, int(across)), _line(r, seen, int(item.motion in ("grow", "shrink")))
    fit_y = np.interp(np.arange(len(y)), np.flatnonzero(seen), y[seen])
    if item.motion != "bounce":
        fit_y = _line(y, seen, int(along))
    off = np.hypot(fit_x - x, fit_y - y)[seen]
    if np.sqrt((off**2).mean()) > FARTHEST:
        return None
    return np.stack([fit_x, fit_y, np.maximum(fit_r, LEAST_RADIUS)], 1)


def redrawn(pictures: np.ndarray, scene: Scene) -> np.ndarray | None:
    """As pictures, uint8 (frames, height, width, 3), for scenes of one shape; None where too little of it is seen."""
    if len(scene.items) != 1:
        return None
    item = scene.items[0]
    background = scene.background if scene.background_said else background_of(pictures)
    track = track_seen(cover_of(pictures, background, item.colour), item)
    if track is None:
        return None
    base, clean = background_image(background, SIZE), np.empty_like(pictures)
    for k, place in enumerate(track):
        frame = base.copy()
        draw(frame, item.shape, COLOURS[item.colour], *(float(value) for value in place))
        clean[k] = np.clip(np.rint(frame), 0, 255)
    a, b = (masks_of(some, background) for some in (pictures, clean))
    return clean if (a & b).sum() > LEAST_OVERLAP * (a | b).sum() else None
