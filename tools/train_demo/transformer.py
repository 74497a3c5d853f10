"""Stage: the transformer, connectors, text projection and text encoder together, by flow matching of both streams.

A tenth of all captions is empty, for guidance; in three of ten steps most clips have their first frame given, in one of
twenty-five the sound. The attributes of scenes are read out of the contexts. Contexts have 128 rows first and 1024, as
at inference, for the last part: trained on 128 alone, sounds went wrong.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import flow
import latents
import networks
import numpy as np
import optim
import reference as ltx
import stage
import torch
from captions import caption
from readout import PICTURE, Readout, said
from tokenizer import Tokenizer
from torch import nn

HOLD_OUT = 200  # clips


class Clips:
    """Latents in the model's units."""

    def __init__(self, folder: Path, statistics: list[torch.Tensor] | None) -> None:
        video, audio, self.scenes = latents.load(folder)
        audio = flow.audio_rows(audio)
        if statistics is None:
            statistics = [*flow.statistics(video), *flow.statistics(audio.transpose(1, 2))]
        self.statistics = statistics
        mean, std, audio_mean, audio_std = statistics
        self.video = (video - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
        self.audio = (audio - audio_mean) / audio_std
        self.count = len(self.scenes) - HOLD_OUT


class Model(nn.Module):
    """What is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.dit, self.text = networks.transformer(), networks.TextEncoder()
        self.of_contexts = Readout(networks.VIDEO_WIDTH, PICTURE)
        self.of_sound = Readout(networks.AUDIO_WIDTH, ("sound",))
        flow.cache_rotations(self.dit)

    def compile(self) -> None:  # type: ignore[override]
        """Blocks, which all share one graph."""
        torch._dynamo.config.recompile_limit = 64
        for block in self.dit.transformer_blocks:
            block.idx = 0  # of use for perturbations only
        connectors = (self.text.video_connector, self.text.audio_connector)
        for block in [*self.dit.transformer_blocks, *(b for c in connectors for b in c.transformer_1d_blocks)]:
            block.forward = torch.compile(block.forward, dynamic=False)

    def optimizers(self, rate: float) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of blocks, Adam for the rest."""
        matrices, others = [], []
        for name, p in self.named_parameters():
            hidden = p.ndim == 2 and ("blocks" in name or "layers" in name)
            special = any(part in name for part in ("scale_shift_table", "gate_logits"))
            (matrices if hidden and not special else others).append(p)
        adam = torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        return [optim.Muon(matrices, 3 * rate), adam]


class Steps:
    """Draws clips, captions and noise, the same for the same step, and gives the losses."""

    def __init__(self, model: Model, clips: Clips, tokenizer: Tokenizer, args: argparse.Namespace) -> None:
        self.model, self.clips, self.tokenizer, self.args = model, clips, tokenizer, args
        self.generator, self.rng = torch.Generator(), np.random.default_rng()
        self.positions: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.unperturbed = ltx.BatchedPerturbationConfig.empty(args.batch)

    def losses(self, step: int, rows: int) -> dict[str, torch.Tensor]:
        """Of video, audio and the readout, and what share of that is right; contexts of so many rows."""
        self.generator.manual_seed(step)
        self.rng = np.random.default_rng(step)
        batch, draws = self.args.batch, self.args.draws * (2 if rows == networks.CONTEXT_ROWS else 1)
        chosen = torch.randint(self.clips.count, (batch // draws,), generator=self.generator)
        scenes = [self.clips.scenes[i] for i in chosen.tolist()]
        prompts = [caption(scene, self.rng) if self.rng.random() >= 0.1 else "" for scene in scenes]
        frames = 3 if self.rng.random() < 0.35 else 4  # both encoders are causal, so a part is a shorter clip
        twice = chosen.repeat_interleave(draws)
        video = self.clips.video[twice][:, :, :frames]
        audio = self.clips.audio[twice][:, : 35 if frames == 3 else 52]
        if frames not in self.positions:
            bins = 16
            self.positions[frames] = flow.positions(
                batch, tuple(video.shape[1:]), (audio.shape[2] // bins, audio.shape[1], bins)
            )
        where_video, where_audio = self.positions[frames]
        labels = [said(scene) if prompt else {} for scene, prompt in zip(scenes, prompts, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            contexts = self.model.text.contexts(*self.tokenizer(prompts), rows)
            readout, right = self.model.of_contexts(contexts[0].float(), labels)
            of_sound, _ = self.model.of_sound(contexts[1].float(), labels)
            contexts = [c.float().repeat_interleave(draws, 0) for c in contexts]

            x = flow.VIDEO.patchify(video)
            sigma = flow.noise_levels(batch, self.generator)
            sigma_audio = self._audio_levels(sigma)
            levels, weight = self._video_levels(sigma, x.shape[1], video.shape[3] * video.shape[4])
            noise, audio_noise = (torch.randn(t.shape, generator=self.generator) for t in (x, audio))
            mix, audio_mix = levels[..., None], sigma_audio[:, None, None]
            velocity, audio_velocity = self.model.dit(
                ltx.Modality((1 - mix) * x + mix * noise, sigma, levels, where_video, contexts[0]),
                ltx.Modality(
                    (1 - audio_mix) * audio + audio_mix * audio_noise,
                    sigma_audio,
                    sigma_audio[:, None],
                    where_audio,
                    contexts[1],
                ),
                self.unperturbed,
            )
        error = (velocity.float() - (noise - x)).square().mean(-1, keepdim=True)
        audio_error = (audio_velocity.float() - (audio_noise - audio)).square().mean((1, 2))
        return {
            "video": (error * weight).sum() / weight.sum(),
            "audio": (audio_error * (sigma_audio > 0)).mean(),
            "contexts": readout + of_sound,
            "read": torch.tensor(right),
        }

    def _audio_levels(self, sigma: torch.Tensor) -> torch.Tensor:
        kind = self.rng.random()
        if kind < 0.04:
            return torch.zeros_like(sigma)  # it is given
        return flow.noise_levels(len(sigma), self.generator) if kind < 0.06 else sigma

    def _video_levels(self, sigma: torch.Tensor, tokens: int, of_frame: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise level of each token, and its weight in the loss (batch, tokens, 1): 0 where it is given."""
        levels, weight = sigma[:, None].repeat(1, tokens), torch.ones(len(sigma), tokens, 1)
        if self.rng.random() < 0.3:
            open_ = (torch.rand(len(sigma), generator=self.generator) >= 0.9).float()
            levels[:, :of_frame] *= open_[:, None]
            weight[:, :of_frame] *= open_[:, None, None]
        return levels, weight


def rate_factor(progress: float, step: int) -> float:
    """Up, constant, then down over the last 40 %."""
    return min(1, (step + 1) / 100) * min(1.0, max(0.02, (1 - progress) / 0.4))


def train(args: argparse.Namespace) -> None:
    """Until args.steps, from the last checkpoint on."""
    torch.manual_seed(3)
    path = args.runs / args.out
    state: dict[str, Any] | None = torch.load(path) if path.exists() else None
    begun = state or (torch.load(args.runs / args.init) if args.init else None)
    clips = Clips(args.runs / "latents", begun and begun["statistics"])
    model = Model()
    params = list(model.parameters())
    optimizers = model.optimizers(args.rate)
    step = 0
    if begun:
        model.load_state_dict(begun["model"])
    average = optim.Average(params, 0.998)
    if state:
        step = state["step"]
        model.load_state_dict(state["raw"])
        average.values = state["average"]
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
    if args.compile:
        model.compile()
    todo = Steps(model, clips, Tokenizer(args.runs / "tokenizer.model"), args)
    weights = {"video": 1.0, "audio": 1.0, "contexts": args.readout}
    sums: dict[str, float] = {}
    began = time.time()
    while step < args.steps:
        progress = step / args.steps
        optim.set_rate(optimizers, rate_factor(progress, step))
        rows = networks.CONTEXT_ROWS if progress >= args.long_from else networks.REGISTERS
        losses = todo.losses(step, rows)
        optim.update(optimizers, params, sum(weight * losses[name] for name, weight in weights.items()), 1.0)
        average.update(step)
        step += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + float(value.detach())
        if step % 50 == 0:
            told = "  ".join(f"{name} {value / 50:.4f}" for name, value in sums.items())
            print(f"{step}  {told}  {(time.time() - began) / 50:.2f} s a step", flush=True)
            sums, began = {}, time.time()
        if step % 250 == 0 or step == args.steps:
            kept = {
                "model": average.during(lambda: optim.copied(model)),
                "raw": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "average": average.values,
                "statistics": clips.statistics,
                "step": step,
            }
            optim.save(kept, path)


def main() -> None:
    parser = stage.parser(__doc__, steps=12000, batch=32, rate=0.0015)
    parser.add_argument("--out", default="transformer.pt")
    parser.add_argument("--init", default="", help="begin with the averaged weights of this checkpoint of --runs")
    parser.add_argument("--draws", type=int, default=2, help="of noise for each caption, which share its contexts")
    parser.add_argument("--readout", type=float, default=0.15, help="weight of what is read out of contexts")
    parser.add_argument("--long-from", type=float, default=0.85, help="share of steps after which contexts are long")
    parser.add_argument("--compile", action="store_true", help="blocks by torch.compile: twice as fast")
    stage.run(parser, train)


if __name__ == "__main__":
    main()
