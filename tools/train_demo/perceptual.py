"""A perceptual loss: pictures differ as much as what a small network, which names shapes, sees in them.

Pixels alone cost a star whose points are missing next to nothing. The network is trained on frames as they are drawn,
more than half of them blurred and all of them noisy, so that it does not fall for dirt that only a network takes for
shapes. Features are compared as LPIPS does (Zhang et al. 2018): scaled to equal strength at each place, layer by layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optim
import torch
from scenes import COLOURS, SHAPES, SIZE, background_image, draw, sample_scene
from torch import nn
from torch.nn import functional

SIDE = 64
RADII = ((11, 18), (18, 27), (27, 36))
STEPS, BATCH, RATE = 1600, 64, 2e-3
LEAST_AREA = 60  # pixels of a shape that has a name


class ShapeFeatures(nn.Module):
    """Four convolutions of stride 2, then a name of SHAPES."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__()
        pairs = zip((3, *widths), widths, strict=False)
        self.convs = nn.ModuleList([nn.Conv2d(given, out, 4, 2, 1) for given, out in pairs])
        self.hidden = nn.Linear(widths[-1] * (SIDE >> len(widths)) ** 2, 64)
        self.out = nn.Linear(64, len(SHAPES))

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """After each convolution. x: (n, 3, height, width), -1 to 1."""
        found = []
        for conv in self.convs:
            x = functional.silu(conv(x))
            found.append(x)
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, shapes) of x (n, 3, SIDE, SIDE)."""
        logits: torch.Tensor = self.out(functional.silu(self.hidden(self.features(x)[-1].flatten(1))))
        return logits


def drawn_frames(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 3, SIDE, SIDE), -1 to 1, of one shape each near the middle, and its number in SHAPES."""
    rng = np.random.default_rng(seed)
    pictures, names = np.empty((n, SIDE, SIDE, 3), np.float32), rng.integers(len(SHAPES), size=n)
    for picture, name in zip(pictures, names, strict=True):
        scene = sample_scene(rng, two=0)
        top = int(rng.integers(SIZE - SIDE))
        picture[:] = background_image(scene.background)[top : top + SIDE, :SIDE]
        r = float(rng.uniform(*RADII[rng.integers(len(RADII))]))
        x, y = rng.uniform(SIDE / 2 - 18, SIDE / 2 + 18, 2)
        draw(picture, SHAPES[name], COLOURS[scene.items[0].colour], float(x), float(y), r)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(names)


def spoilt(x: torch.Tensor) -> torch.Tensor:
    """Some blurred, all with noise, coarse and fine; x: (n, 3, SIDE, SIDE)."""
    n, reach = len(x), 5
    sigma = (3 * torch.rand(n, 1)).clamp_min(0.3)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).square() / (2 * sigma.square()))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    rows = functional.pad(x, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = functional.conv2d(rows, kernel[:, None, None, :], groups=3 * n)
    blurred = functional.conv2d(rows, kernel[:, None, :, None], groups=3 * n).view_as(x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.6, blurred, x)
    coarse = functional.interpolate(torch.randn(n, 3, 8, 8), size=x.shape[-1], mode="bilinear")
    coarse, fine = 0.15 * coarse * torch.rand(n, 1, 1, 1), 0.1 * torch.randn_like(x) * torch.rand(n, 1, 1, 1)
    return x + coarse + fine


def trained(path: Path, steps: int = STEPS) -> ShapeFeatures:
    """The network of that file, which is made first where it is missing: a minute or two."""
    if path.exists():
        net = ShapeFeatures()
        net.load_state_dict(torch.load(path))
    else:
        with torch.random.fork_rng():
            net = _new(steps)
        optim.save(net.state_dict(), path)
    return net.requires_grad_(False)


def _new(steps: int) -> ShapeFeatures:
    torch.manual_seed(0)
    net = ShapeFeatures()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    for step in range(steps):
        optim.set_rate([optimizer], min(1, (step + 1) / 50) * (1 - step / steps))
        torch.manual_seed(step)
        x, names = drawn_frames(step, BATCH)
        loss = functional.cross_entropy(net(spoilt(x)), names)
        optim.update([optimizer], list(net.parameters()), loss, 1.0)
    return net


def _even(features: torch.Tensor) -> torch.Tensor:
    """Of equal strength at each place."""
    return features / (features.square().mean(1, keepdim=True) + 0.01).sqrt()


def difference(net: ShapeFeatures, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mean of all layers; y and x: (batch, 3, frames, height, width), -1 to 1."""
    seen, wanted = (net.features(v.transpose(1, 2).flatten(0, 1)) for v in (y, x))
    layers = [(_even(a) - _even(b)).abs().mean() for a, b in zip(seen, wanted, strict=True)]
    return torch.stack(layers).mean()


def misnamed(net: ShapeFeatures, y: torch.Tensor, clean: torch.Tensor, shapes: list[str], step: int) -> torch.Tensor:
    """Cross entropy of the names of the only shapes of y, in every sixth frame, others in each step.

    Both (batch, 3, frames, height, width), -1 to 1; `clean` shows where the shapes are, and shapes what they are.
    """
    there = (clean - clean[..., :1]).abs().amax(1) > 0.25  # the left edge has the colour of its row's background
    parts, names = [], []
    for clip, (where, shape) in enumerate(zip(there, shapes, strict=True)):
        for frame in range(step % 6, len(where), 6):
            pixels = where[frame].nonzero().float()
            if len(pixels) < LEAST_AREA:
                continue
            top, left = (int(c) for c in (pixels.mean(0) - SIDE / 2 + torch.randint(-8, 9, (2,))).clamp(0, SIZE - SIDE))
            parts.append(y[clip, :, frame, top : top + SIDE, left : left + SIDE])
            names.append(SHAPES.index(shape))
    if not parts:
        return y.new_zeros(())
    seen = torch.stack(parts)
    return functional.cross_entropy(net(seen + 0.05 * torch.randn_like(seen)), torch.tensor(names))
