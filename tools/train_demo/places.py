"""Which latent cells a clip's shapes touch."""

from __future__ import annotations

import numpy as np
import torch
from scenes import SIZE, Scene, sample_scene, tracks_of


def _spans(centres: np.ndarray, reach: np.ndarray, cells: int) -> np.ndarray:
    """bool (frames, cells) along one axis."""
    edges = np.arange(cells + 1) * (SIZE / cells)
    return ((centres + reach)[:, None] > edges[None, :-1]) & ((centres - reach)[:, None] < edges[None, 1:])


def shape_cells(scenes: list[Scene], first_seed: int, shape: torch.Size) -> torch.Tensor:
    """float32 (clips, frames, rows, columns), 0 or 1, for clips by successive seeds; shape: of their latents."""
    frames, rows, columns = shape
    found = np.zeros((len(scenes), frames, rows, columns), np.float32)
    for i in range(len(scenes)):
        rng = np.random.default_rng(first_seed + i)
        for track in tracks_of(sample_scene(rng), rng):
            x, y, reach = track[:, 0], track[:, 1], 1.2 * track[:, 2]
            there = _spans(y, reach, rows)[:, :, None] & _spans(x, reach, columns)[:, None, :]
            # The first latent frame is the first picture, each other one 8 pictures.
            found[i, 0] = np.maximum(found[i, 0], there[0])
            for k in range(1, frames):
                found[i, k] = np.maximum(found[i, k], there[8 * k - 7 : 8 * k + 1].any(0))
    return torch.from_numpy(found)
