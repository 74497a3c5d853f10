"""Stage: the vocoder with its bandwidth extension, by regression on spectrograms and waves.

Half of the steps see what the audio VAE makes of a spectrogram. Seven of eight are windows of 40 mel frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import networks
import numpy as np
import optim
import stage
import torch
from mel import log_mel
from melodies import waves
from sounds import HOP
from torch import nn

WINDOW, EDGE = 40, 4  # mel frames; those at an edge of a window that do not count
BANK_SEED, TEST_SEED = 7 * 10**8, 10**9


class Sounds:
    """Waves at both rates and their spectrograms."""

    def __init__(self, first_seed: int, count: int) -> None:
        both = [waves(seed) for seed in range(first_seed, first_seed + count)]
        self.low, self.high = (torch.from_numpy(np.stack([pair[k] for pair in both])) for k in (0, 1))
        self.mel = log_mel(self.low)[:, 0].contiguous()

    def stereo_mel(self, chosen: torch.Tensor) -> torch.Tensor:
        """(batch, 2, frames, 64)."""
        return self.mel[chosen, None].expand(-1, 2, -1, -1)


def spectral_loss(y: torch.Tensor, x: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Of waves (batch, samples): convergence and log magnitude at several resolutions."""
    total = y.new_zeros(())
    for n in sizes:
        window = torch.hann_window(n)
        a, b = (torch.stft(w, n, n // 4, n, window, return_complex=True).abs().clamp(min=1e-5) for w in (y, x))
        total = total + (a - b).norm() / (b.norm() + 0.1)
        total = total + 0.5 * (a.clamp(min=1e-2).log() - b.clamp(min=1e-2).log()).abs().mean()
    return total / len(sizes)


def _snr(vocoder: nn.Module, test: Sounds) -> float:
    """dB at 48 kHz, of sounds that are not silence."""
    with torch.no_grad():
        y = vocoder(test.stereo_mel(torch.arange(len(test.low))))
    n = min(y.shape[-1], test.high.shape[1])
    x = test.high[:, None, :n]
    error, power = (y[..., :n] - x).square().sum(-1), x.square().sum(-1)
    return float(10 * torch.log10(power / error.clamp(min=1e-9))[power[:, 0] > 1].mean())


def train(args: argparse.Namespace) -> None:
    """Half an hour: from the beginning, or from --init on."""
    torch.manual_seed(2)
    vocoder = networks.vocoder()
    if args.init:
        vocoder.load_state_dict(torch.load(args.init)["voc"])
    encoder, decoder = networks.audio_vae()
    state = torch.load(args.runs / "audio_vae.pt")
    encoder.load_state_dict(state["enc"]), decoder.load_state_dict(state["dec"])
    params = list(vocoder.parameters())
    average = optim.Average(params, 0.995)
    optimizers: list[torch.optim.Optimizer] = [
        optim.Muon([p for p in params if p.ndim == 3], args.rate, momentum=0.9, weight_decay=0.0),
        torch.optim.AdamW(
            [p for p in params if p.ndim < 3], args.rate, betas=(0.8, 0.98), weight_decay=0.0, fused=True
        ),
    ]
    low_out: dict[str, torch.Tensor] = {}
    vocoder.vocoder.register_forward_hook(lambda _module, _given, out: low_out.update(y=out))
    test, bank = Sounds(TEST_SEED, 16), Sounds(BANK_SEED, args.bank)
    for step in range(args.steps):
        optim.set_rate(optimizers, optim.cosine(step, args.steps, 60))
        whole = step % 8 == 7
        chosen = torch.randint(len(bank.low), (3 if whole else args.batch,))
        mel = bank.stereo_mel(chosen)
        if step % 2:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                mel = decoder(encoder(mel)).float()
        usable = min(mel.shape[2], bank.low.shape[1] // HOP)
        begin = 0 if whole else int(torch.randint(usable - WINDOW, ()))
        width = usable if whole else WINDOW
        first, last = (EDGE if begin else 0), (width if whole else width - EDGE)
        with torch.autocast("cpu", torch.bfloat16):
            high = vocoder(mel[:, :, begin : begin + width].contiguous()).float()
        pairs = []
        for y, x, hop in ((low_out["y"].float(), bank.low, HOP), (high, bank.high, 3 * HOP)):
            y = y[..., first * hop : last * hop]
            x = x[chosen, (begin + first) * hop : (begin + last) * hop]
            pairs.append((y.flatten(0, 1), x[:, None].expand_as(y).flatten(0, 1)))
        (y_low, x_low), (y_high, x_high) = pairs
        loss = 8 * (y_low - x_low).abs().mean() + 4 * (y_high - x_high).abs().mean()
        loss = loss + spectral_loss(y_low, x_low, (256, 1024)) + 0.5 * spectral_loss(y_high, x_high, (512, 2048))
        optim.update(optimizers, params, loss, 2.0)
        average.update(step)
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            told = average.during(lambda: _snr(vocoder, test))
            print(f"{step + 1} loss {float(loss.detach()):.4f} SNR at 48 kHz {told:.1f} dB", flush=True)
            kept = {"voc": average.during(lambda: optim.copied(vocoder)), "step": step + 1}
            optim.save(kept, args.runs / "vocoder.pt")


def main() -> None:
    parser = stage.parser(__doc__, steps=1100, batch=8, rate=0.002)
    parser.add_argument("--init", type=Path, help="begin with these weights")
    parser.add_argument("--bank", type=int, default=400, help="sounds kept in memory")
    stage.run(parser, train)


if __name__ == "__main__":
    main()
