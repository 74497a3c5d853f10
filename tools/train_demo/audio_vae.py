"""Stage: the audio VAE, on log-mel spectrograms."""

from __future__ import annotations

import argparse

import networks
import numpy as np
import optim
import stage
import torch
from mel import log_mel
from melodies import waves
from torch import nn

TEST_SEED = 10**9


def spectrograms(first_seed: int, count: int) -> torch.Tensor:
    """(count, 2, frames, 64); both channels are the same."""
    parts = []
    for begin in range(first_seed, first_seed + count, 50):
        end = min(begin + 50, first_seed + count)
        parts.append(log_mel(torch.from_numpy(np.stack([waves(seed)[0] for seed in range(begin, end)]))))
    return torch.cat(parts)


def _errors(encoder: nn.Module, decoder: nn.Module, test: torch.Tensor) -> tuple[float, float]:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = decoder(encoder(test)).float()
    frames = min(y.shape[2], test.shape[2])
    error = (y[:, :, :frames] - test[:, :, :frames]).abs()
    return float(error.mean()), float(error[test[:, :, :frames] > -8].mean())


def train(args: argparse.Namespace) -> None:
    """A few minutes: from the beginning."""
    torch.manual_seed(2)
    encoder, decoder = networks.audio_vae()
    for module in (encoder, decoder):
        module.to(memory_format=torch.channels_last)
    params = [*encoder.parameters(), *decoder.parameters()]
    average = optim.Average(params, 0.995)
    optimizers = [torch.optim.AdamW(params, args.rate, betas=(0.9, 0.98), weight_decay=1e-4, fused=True)]
    posterior: dict[str, torch.Tensor] = {}
    encoder.conv_out.register_forward_hook(lambda _module, _given, out: posterior.update(out=out))
    test, bank = spectrograms(TEST_SEED, 24), spectrograms(0, args.bank)[:, :1]
    for step in range(args.steps):
        optim.set_rate(optimizers, optim.cosine(step, args.steps, 60))
        frames = 209 if step % 4 else 141
        mel = bank[torch.randint(len(bank), (args.batch,))].expand(-1, 2, -1, -1)[:, :, :frames]
        with torch.autocast("cpu", torch.bfloat16):
            encoder(mel)
            mean, logvar = posterior["out"].float().chunk(2, 1)
            logvar = logvar.clamp(-12, 4)
            y = decoder(mean + torch.randn_like(mean) * (0.5 * logvar).exp()).float()
        length = min(y.shape[2], mel.shape[2])
        y, x = y[:, :, :length], mel[:, :, :length]
        error = (y - x).abs()
        loss = (error * (1 + 1.5 * (x > -8).float())).mean() + 0.1 * error.square().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        optim.update(optimizers, params, loss + args.kl * kl, 1.0)
        average.update(step)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            whole, loud = average.during(lambda: _errors(encoder, decoder, test))
            told = f"loss {float(loss.detach()):.4f} kl {float(kl.detach()):.3f} mel {whole:.3f}, loud {loud:.3f}"
            print(f"{step + 1} {told}", flush=True)
    kept = average.during(lambda: {"enc": optim.copied(encoder), "dec": optim.copied(decoder)})
    optim.save(kept | {"step": args.steps}, args.runs / "audio_vae.pt")


def main() -> None:
    parser = stage.parser(__doc__, steps=1000, batch=12, rate=0.002)
    parser.add_argument("--kl", type=float, default=3e-3)
    parser.add_argument("--bank", type=int, default=1600, help="sounds kept in memory")
    stage.run(parser, train)


if __name__ == "__main__":
    main()
