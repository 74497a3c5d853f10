"""Stage: the video VAE, on clips as they are drawn.

The loss is the difference of pixels, of their gradients in space and time and of coarser copies, weighted around the
shapes, a perceptual loss of shapes (perceptual.py), a little KL, and how well the kind of a shape can be read out of
latents with noise (readout.py): what is faint in them, sampling loses. The decoder sees latents with noise too, so
that it forgives what sampling gets wrong. Most steps are windows of 64x64 around a shape: most of the signal at a
fraction of the cost. What is hard is shown more often: shapes with points, and a light background.

With --keep the encoder learns the light background alone: latents of all others stay what they were, so that a trained
transformer has no more to learn anew than those.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import networks
import numpy as np
import optim
import perceptual
import stage
import torch
from clips import make_clip
from readout import LatentReadout
from scenes import COLOURS, FRAMES, SIZE, UNREADABLE, Scene, background_image, draw, sample_scene, tracks_of
from torch import nn
from torch.nn import functional

WINDOW = 64
TEST_SEED = 10**9
ODDS = {"circle": 0.11, "square": 0.11, "triangle": 0.31, "star": 0.47}  # where hard scenes are wanted
LIGHT = 0.45  # share of hard scenes that are put on the light background, but for colours that it hides
PERCEPTUAL = 2.0  # weight of the perceptual loss
READOUT, READOUT_RATE = 0.1, 1e-3  # weight of what is read out of latents, and its learning rate
LEAST_NOISE = 0.02  # share of the latents' spread


def as_batch(pictures: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(pictures).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last_3d)


def harden(scene: Scene, rng: np.random.Generator) -> None:
    """Gives it a shape and a background that are learned late."""
    scene.items[0].shape = str(rng.choice(list(ODDS), p=list(ODDS.values())))
    if rng.random() < LIGHT and not any((item.colour, "light") in UNREADABLE for item in scene.items):
        scene.background = "light"


def windows(seed: int, n: int, frames: int, side: int, hard: bool = False) -> tuple[torch.Tensor, list[Scene]]:
    """(n, 3, frames, side, side), -1 to 1, around the first shape of random scenes."""
    pictures, scenes = np.empty((n, frames, side, side, 3), np.float32), []
    for i in range(n):
        rng = np.random.default_rng(seed + i + 10**12)
        scene = sample_scene(rng)
        if hard:
            harden(scene, rng)
        tracks = tracks_of(scene, rng)
        start = int(rng.integers(0, FRAMES - frames + 1))
        x, y, _ = tracks[0][start + frames // 2]
        left, top = (int(np.clip(c - side // 2 + rng.integers(-24, 25), 0, SIZE - side)) for c in (x, y))
        base = background_image(scene.background)[top : top + side, left : left + side]
        for k in range(frames):
            pictures[i, k] = base
            for item, track in zip(scene.items, tracks, strict=True):
                x, y, r = track[start + k]
                draw(pictures[i, k], item.shape, COLOURS[item.colour], x - left, y - top, r)
        scenes.append(scene)
    return as_batch(np.rint(pictures)), scenes


def reconstruction_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of pictures (batch, 3, frames, height, width), -1 to 1."""
    rim = x[:, :, :, :, :1].mean((2, 4), keepdim=True)
    shape = ((x - rim).abs().amax(1, keepdim=True) > 0.15).float()
    weight = 1 + 4 * functional.max_pool3d(shape, (1, 9, 9), 1, (0, 4, 4))
    error = (y - x).abs()
    loss = (error * weight).mean() + 0.5 * (error.square() * weight).mean()
    for axis in (-1, -2, 2):
        loss = loss + 0.5 * (y.diff(dim=axis) - x.diff(dim=axis)).abs().mean()
    for k in (4, 16):
        loss = loss + 0.5 * (functional.avg_pool3d(y, (1, k, k)) - functional.avg_pool3d(x, (1, k, k))).abs().mean()
    return loss


def picture_loss(features: perceptual.ShapeFeatures, y: torch.Tensor, x: torch.Tensor, step: int) -> torch.Tensor:
    """Reconstruction, and what the network of shapes sees in every third frame, others in each step."""
    some = slice(step % 3, None, 3)
    seen = perceptual.difference(features, y[:, :, some], x[:, :, some])
    return reconstruction_loss(y, x) + PERCEPTUAL * seen


def psnr(y: torch.Tensor, x: torch.Tensor) -> float:
    """dB, the mean over clips."""
    return float(10 * torch.log10(4.0 / (y.clamp(-1, 1) - x).square().mean((1, 2, 3, 4))).mean())


def _clips_of(step: int, args: argparse.Namespace) -> tuple[torch.Tensor, list[Scene]]:
    seed = step * 64
    if step % 12 == 1 or step >= args.steps * args.window_part:
        return windows(seed, args.batch, (25, 9, 17, 25)[step % 4], SIZE, hard=True)
    return windows(seed, args.batch, 17 if step % 3 == 0 else 9, WINDOW, hard=True)


class Kept:
    """Latents of an earlier encoder, which those of a new one shall keep but on the light background."""

    def __init__(self, path: Path) -> None:
        self.encoder, _ = networks.video_vae()
        self.encoder.load_state_dict(torch.load(path)["enc"])
        self.encoder.to(memory_format=torch.channels_last_3d).requires_grad_(False)

    def drift(self, latents: torch.Tensor, x: torch.Tensor, scenes: list[Scene]) -> torch.Tensor:
        """Mean square of their difference, as a share of the latents' variance."""
        with torch.autocast("cpu", torch.bfloat16):
            before = self.encoder(x).float()
        bound = torch.tensor([scene.background != "light" for scene in scenes]).view(-1, 1, 1, 1, 1)
        return ((latents - before).square() * bound).mean() / before.var()


def train(args: argparse.Namespace) -> None:
    """Until args.steps, from the last checkpoint on."""
    torch.manual_seed(1)
    path = args.runs / "video_vae.pt"
    encoder, decoder = networks.video_vae()
    for module in (encoder, decoder):
        module.to(memory_format=torch.channels_last_3d)
    readout = LatentReadout(networks.CONFIG["vae"]["latent_channels"])
    params = [*(() if args.freeze_encoder else encoder.parameters()), *decoder.parameters()]
    optimizers: list[torch.optim.Optimizer] = [
        optim.Muon([p for p in params if p.ndim == 5], args.rate, momentum=0.9),
        torch.optim.AdamW(
            [p for p in params if p.ndim < 5], args.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        ),
        torch.optim.AdamW(readout.parameters(), READOUT_RATE, weight_decay=0.01),
    ]
    step = 0
    if args.init:
        state = torch.load(args.init)
        encoder.load_state_dict(state["enc"]), decoder.load_state_dict(state["dec"])
    kept_latents = Kept(args.keep) if args.keep else None
    average = optim.Average(params, 0.995)
    if path.exists() and "optimizers" in (state := torch.load(path)):
        encoder.load_state_dict(state["enc_raw"]), decoder.load_state_dict(state["dec_raw"])
        readout.load_state_dict(state["readout"])
        average.values, step = state["average"], state["step"]
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    features = perceptual.trained(args.runs / "perceptual.pt")
    posterior: dict[str, torch.Tensor] = {}
    encoder.conv_out.register_forward_hook(lambda _module, _given, out: posterior.update(out=out))
    test = as_batch(np.stack([make_clip(TEST_SEED + i).pictures for i in range(8)]))
    while step < args.steps:
        optim.set_rate(optimizers, optim.cosine(step, args.steps, 40))
        torch.manual_seed(step)
        x, scenes = _clips_of(step, args)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not args.freeze_encoder):
                encoder(x)
            out = posterior["out"].float()
            mean, logvar = out[:, :-1], out[:, -1:].clamp(-12, -3)
            share = LEAST_NOISE + (args.noise - LEAST_NOISE) * torch.rand(len(x), 1, 1, 1, 1)
            spread = torch.maximum((0.5 * logvar).exp(), share * mean.detach().std())
            y = decoder(mean + torch.randn_like(mean) * spread).float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = picture_loss(features, y, x, step)
        told = readout(mean, scenes)
        drift = kept_latents.drift(mean, x, scenes) if kept_latents else kl.new_zeros(())
        optim.update(optimizers, params, loss + args.kl * kl + READOUT * told + drift, 1.0)
        average.update(step)
        step += 1
        if step % 20 == 0:
            values = {"loss": loss, "kl": kl, "readout": told, "drift": drift}
            losses = " ".join(f"{name} {float(value.detach()):.4f}" for name, value in values.items())
            print(f"{step} {losses} psnr {psnr(y.detach(), x):.2f}", flush=True)
        if step % 100 == 0 or step == args.steps:
            tested = average.during(lambda: _tested(encoder, decoder, test))
            print(f"== {step} psnr of clips that were not trained on {tested:.2f}", flush=True)
            kept = average.during(lambda: {"enc": optim.copied(encoder), "dec": optim.copied(decoder)})
            kept |= {"enc_raw": encoder.state_dict(), "dec_raw": decoder.state_dict(), "average": average.values}
            kept["readout"] = readout.state_dict()
            kept |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers], "step": step}
            optim.save(kept, path)


def _tested(encoder: nn.Module, decoder: nn.Module, test: torch.Tensor) -> float:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return psnr(decoder(encoder(test)).float(), test)


def main() -> None:
    parser = stage.parser(__doc__, steps=12000, batch=8, rate=0.004)
    parser.add_argument("--init", type=Path, help="begin with the averaged weights of this checkpoint")
    parser.add_argument(
        "--freeze-encoder", action="store_true", help="train the decoder alone: latents stay as they are"
    )
    parser.add_argument("--keep", type=Path, help="latents stay those of this checkpoint, but on the light background")
    parser.add_argument("--noise", type=float, default=0.25, help="at most, share of the latents' spread")
    parser.add_argument("--window-part", type=float, default=0.8, help="share of steps on windows, but for one of 12")
    parser.add_argument("--kl", type=float, default=1e-4)
    stage.run(parser, train)


if __name__ == "__main__":
    main()
