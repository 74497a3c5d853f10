"""Reads what scenes are out of the vectors of a network, which teaches it to keep that in them.

Without it colours came out right in 38 % of all clips after 2,500 steps, with it in 84 % after 1,750.
"""

from __future__ import annotations

import torch
from scenes import BACKGROUNDS, COLOURS, MOTIONS, RADII, SHAPES, SOUNDS, Scene
from torch import nn

NAMES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(RADII),
    "motion": MOTIONS,
    "background": BACKGROUNDS,
    "colour2": tuple(COLOURS),
    "shape2": SHAPES,
    "motion2": MOTIONS,
    "sound": SOUNDS,
}
PICTURE = tuple(name for name in NAMES if name != "sound")


def said(scene: Scene) -> dict[str, str]:
    """The attributes that a caption of it names."""
    item = scene.items[0]
    found = {"colour": item.colour, "shape": item.shape, "motion": item.motion}
    if item.size_said:
        found["size"] = item.size
    if scene.background_said:
        found["background"] = scene.background
    if scene.sound_said:
        found["sound"] = scene.sound
    if len(scene.items) > 1:
        other = scene.items[1]
        found |= {"colour2": other.colour, "shape2": other.shape, "motion2": other.motion}
    return found


class Readout(nn.Module):
    """Attention pooling and a linear layer for each attribute."""

    def __init__(self, width: int, attributes: tuple[str, ...]) -> None:
        super().__init__()
        self.query = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in attributes})
        self.out = nn.ModuleDict({name: nn.Linear(width, len(NAMES[name])) for name in attributes})

    def forward(self, x: torch.Tensor, labels: list[dict[str, str]]) -> tuple[torch.Tensor, float]:
        """Cross entropy, added up over attributes, and the share that is right; x (batch, rows, width)."""
        total, right, count = x.new_zeros(()), 0, 0
        for name, layer in self.out.items():
            rows = [i for i, label in enumerate(labels) if name in label]
            if not rows:
                continue
            some = x[rows]
            weights = (some @ self.query[name] * x.shape[-1] ** -0.25).softmax(1)
            logits = layer((weights[..., None] * some).sum(1))
            wanted = torch.tensor([NAMES[name].index(labels[i][name]) for i in rows])
            total = total + nn.functional.cross_entropy(logits, wanted)
            right += int((logits.argmax(1) == wanted).sum())
            count += len(rows)
        return total, right / max(1, count)
