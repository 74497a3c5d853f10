"""Whether a device computes what the reference computes, and clips of the built-in model are what prompts say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from checks import Row, Run
from reference_runs import distilled_sampler, wide_velocity

import sdltx

Arrays = dict[str, np.ndarray[Any, Any]]


def stages(run: Run) -> Iterator[Row]:
    """Each network of a tiny model, from the inputs of the reference's own run."""
    folder = run.data / "tiny-a"

    def row(name: str, found: Any, wanted: Any) -> Row:
        return {"name": name, **run.relative(found, wanted)}

    with sdltx.load(folder / "tiny-ltx-2.3.safetensors", folder / "gemma", device=run.device) as pipe:
        text, trajectory = _golden(folder, "text"), _golden(folder, "trajectory")
        context = pipe.encode(str(_golden(folder, "e2e")["prompt"]))
        for kind in ("video", "audio"):
            wanted = text[f"pos.{kind}_context"]
            yield row(f"text to {kind} context", getattr(context, kind)[text["pos.context_rows"]], wanted)
        loop = distilled_sampler(pipe, text, _golden(folder, "transformer"), trajectory)
        while loop.index < loop.num_steps:
            loop.step()
        for kind in ("video", "audio"):
            yield row(f"8 steps, {kind}", getattr(loop, kind), trajectory[f"distilled.{kind}_latents"][-1])
        video = _golden(folder, "video_vae")
        pieces: list[np.ndarray[Any, Any]] = []
        pipe._core.decode(video["decode.latent"], tiling=(0, 0, 0, 0), on_frames=pieces.append, raw=True)
        pictures = np.concatenate(pieces).transpose(3, 0, 1, 2)
        yield row("latents to pictures", pictures[..., ::3, ::3], video["decode.video_sub3"])
        shown = video["encode.video_u8"].astype(np.float32) / 127.5 - 1
        yield row("pictures to latents", pipe._core.encode_video(shown, tiling=(0, 0, 0, 0)), video["encode.latent"])
        audio = _golden(folder, "audio")
        wave, _ = pipe._core.decode_audio(audio["decode.latent"], piece_seconds=0)
        yield row("latents to sound", wave, audio["wave"])
        yield row("sound to latents", pipe.encode_audio(audio["encode.wave_16k"], 16000), audio["encode.latent"])


def widths(run: Run) -> Iterator[Row]:
    """The transformer with heads as wide as the release's."""
    folder = run.data / "tiny-w"
    wide = _golden(folder, "wide")
    with sdltx.load(folder / "tiny-ltx-2.3-dit.safetensors", device=run.device) as pipe:
        for case in ("long", "square"):
            for kind, velocity in wide_velocity(pipe, wide, case).items():
                name = f"heads of 128 and 64, {case} clip, {kind}"
                yield {"name": name, **run.relative(velocity, wide[f"{case}.{kind}_velocity"])}


def offload(run: Run) -> Iterator[Row]:
    """Wherever weights stay, the bits are the same."""
    folder = run.data / "tiny-a"
    text, trajectory = _golden(folder, "text"), _golden(folder, "trajectory")
    first = None
    for mode in ("none", "stage", "blocks"):
        with sdltx.load(folder / "tiny-ltx-2.3.safetensors", device=run.device, offload=mode) as pipe:
            loop = distilled_sampler(pipe, text, _golden(folder, "transformer"), trajectory)
            for _ in range(2):
                loop.step()
            found = np.concatenate([loop.video.ravel(), loop.audio.ravel()])
            del loop  # or a worker would be held
        first = found if first is None else first
        yield {"name": f"offload {mode}", "ok": bool(np.array_equal(found, first))}


def demo(run: Run) -> Iterator[Row]:
    """Colour, motion and pitch of the built-in model's clips, as they are read from pictures and sound."""
    from evaluate import Score, prompts, reading_of, right

    count = 2 if run.quick else 12
    wanted = [p for p in prompts(60, first_seed=8 * 10**8) if {"colour", "motion", "pitch"} <= p.wanted.keys()][:count]
    score = Score()
    with sdltx.load(device=run.device) as pipe:
        for prompt in wanted:
            score.add(right(prompt, reading_of(pipe.generate(prompt.text, seed=prompt.seed))), 0)
    for name in ("colour", "motion", "pitch"):
        enough = max(1, count - 2)  # as the tests of the CPU have it
        yield {
            "name": f"{name} as asked for",
            "clips": count,
            "right": score.hits[name],
            "ok": score.hits[name] >= enough,
        }


def _golden(folder: Path, stem: str) -> Arrays:
    with np.load(folder / "goldens" / f"{stem}.npz") as arrays:
        return dict(arrays)
