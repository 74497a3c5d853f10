"""Stage: the video decoder again, sharper; the encoder, and so the latents, stay as they are.

It learns from what the encoder makes of clips and, in half of the steps, from latents that the transformer sampled
(samples.py): there it learns to draw the faultless clip that they mean (ideal.py), not every dent of sampling. The loss
is that of video_vae.py and, there, how well the network of shapes names what is drawn.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import ideal
import networks
import numpy as np
import optim
import perceptual
import stage
import torch
from scenes import FRAMES, SIZE
from torch import nn
from video_vae import TEST_SEED, WINDOW, as_batch, picture_loss, psnr, windows

HOLD_OUT = 100  # sampled clips
NOISE = 0.04  # in latents of drawn clips, share of their spread
NAMES = 0.05  # weight of the names of shapes


def as_pictures(y: torch.Tensor) -> np.ndarray:
    """uint8 (batch, frames, height, width, 3) of (batch, 3, frames, height, width), -1 to 1."""
    return ((y.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()


def _decoded(decoder: nn.Module, latents: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return decoder(latents.contiguous(memory_format=torch.channels_last_3d)).float()


def _encoded(encoder: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        latents: torch.Tensor = encoder(pictures).float()
    return latents


class Samples:
    """Sampled latents, and the clips that they mean; `count` are to learn from, the last HOLD_OUT to test with.

    A transformer that has learned next to nothing shows nothing that could be redrawn: count is 0 then.
    """

    def __init__(self, folder: Path, decoder: nn.Module) -> None:
        latents, clips, shapes = [], [], []
        for path in sorted(folder.glob("*.pt")):
            part = torch.load(path)
            scenes = pickle.loads(part["scenes"])
            for first in range(0, len(scenes), 10):
                some = part["video"][first : first + 10]
                with torch.no_grad():
                    pictures = as_pictures(_decoded(decoder, some.float()))
                for k, scene in enumerate(scenes[first : first + 10]):
                    clean = ideal.redrawn(pictures[k], scene)
                    if clean is not None:
                        latents.append(some[k])
                        clips.append(clean)
                        shapes.append(scene.items[0].shape)
        self.latents, self.clips, self.shapes = latents, clips, shapes
        self.count = max(0, len(clips) - HOLD_OUT)

    def take(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Latents, pictures and the names of their shapes."""
        latents, clips = ([values[k] for k in chosen] for values in (self.latents, self.clips))
        return torch.stack(latents).float(), as_batch(np.stack(clips)), [self.shapes[k] for k in chosen]


class Steps:
    """Draws latents and pictures, the same for the same step."""

    def __init__(self, encoder: nn.Module, samples: Samples, args: argparse.Namespace) -> None:
        self.encoder, self.samples, self.args = encoder, samples, args
        self.generator = torch.Generator()

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Latents with a little noise, the pictures wanted of them and, of sampled ones, the names of their shapes."""
        self.generator.manual_seed(step)
        seed, batch = step * 64, self.args.batch
        if step % 2 and self.samples.count:
            chosen = np.random.default_rng(step).integers(self.samples.count, size=batch)
            latents, pictures, names = self.samples.take(chosen)
            share = self.args.noise * float(torch.rand(1, generator=self.generator))
        else:
            whole = step % 16 == 2
            size = (batch, FRAMES, SIZE) if whole else (4 * batch, 17, WINDOW)
            pictures, _ = windows(seed, *size, hard=True)
            latents, share, names = _encoded(self.encoder, pictures), NOISE, []
        noise = torch.randn(latents.shape, generator=self.generator)
        return latents + share * latents.std() * noise, pictures, names


def _tested_on(encoder: nn.Module, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and pictures: sampled ones where there are any."""
    if samples.count:
        return samples.take(np.arange(samples.count, samples.count + 8))[:2]
    clips, _ = windows(TEST_SEED, 8, FRAMES, SIZE)
    return _encoded(encoder, clips), clips


def train(args: argparse.Namespace) -> None:
    """Until args.steps, from the last checkpoint on."""
    begun, path = torch.load(args.runs / "video_vae.pt"), args.runs / "decoder.pt"
    encoder, decoder = networks.video_vae()
    encoder.load_state_dict(begun["enc"]), decoder.load_state_dict(begun["dec"])
    for module in (encoder, decoder):
        module.to(memory_format=torch.channels_last_3d)
    samples = Samples(args.runs / "samples", decoder)
    print(f"{samples.count} clips to learn from", flush=True)
    params = list(decoder.parameters())
    optimizers: list[torch.optim.Optimizer] = [
        optim.Muon([p for p in params if p.ndim == 5], args.rate, momentum=0.9),
        torch.optim.AdamW(
            [p for p in params if p.ndim < 5], args.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        ),
    ]
    average, step = optim.Average(params, 0.995), 0
    if path.exists():
        state = torch.load(path)
        decoder.load_state_dict(state["raw"])
        average.values, step = state["average"], state["step"]
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    features = perceptual.trained(args.runs / "perceptual.pt")
    todo = Steps(encoder, samples, args)
    test = _tested_on(encoder, samples)
    while step < args.steps:
        optim.set_rate(optimizers, optim.cosine(step, args.steps, 40))
        torch.manual_seed(step)
        latents, pictures, names = todo.draw(step)
        y = _decoded(decoder, latents)
        loss = picture_loss(features, y, pictures, step)
        if names:
            loss = loss + NAMES * perceptual.misnamed(features, y, pictures, names, step)
        optim.update(optimizers, params, loss, 1.0)
        average.update(step)
        step += 1
        if step % 20 == 0:
            print(f"{step} loss {float(loss.detach()):.4f} psnr {psnr(y.detach(), pictures):.2f}", flush=True)
        if step % 100 == 0 or step == args.steps:
            told = average.during(lambda: psnr(_decoded(decoder, test[0]), test[1]))
            print(f"== {step} psnr of clips that were not trained on {told:.2f}", flush=True)
            kept = {"dec": average.during(lambda: optim.copied(decoder)), "raw": decoder.state_dict()}
            kept |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            optim.save(kept | {"average": average.values, "step": step}, path)


def main() -> None:
    parser = stage.parser(__doc__, steps=5000, batch=3, rate=0.002)
    parser.add_argument("--noise", type=float, default=0.25, help="most in sampled latents, share of their spread")
    stage.run(parser, train)


if __name__ == "__main__":
    main()
