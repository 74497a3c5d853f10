"""How well clips follow their prompts, made by sdltx, read by measures.py.

python evaluate.py [MODEL] [--clips 200] [--variants keep,q8_0,q4_0] [--ways default,unguided,distilled]

MODEL: a folder with all parts; the built-in model by default. Prompts and seeds were not trained on. Only attributes
that a prompt names count. Variants other than keep, which is the model as it is, are made by `sdltx.convert`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sheets
from captions import caption
from measures import Reading, read_clip
from scenes import DIRECTIONS, Scene, render_pictures, sample_scene
from sounds import HIGH_RATE

import sdltx

FIRST_SEED = 9 * 10**8
BUILT_IN = Path(__file__).parents[2] / "python" / "sdltx" / "demo"
# What `generate` is told in place of the model's defaults.
WAYS: dict[str, dict[str, Any]] = {
    "default": {},
    "unguided": {"guidance_scale": 1.0, "audio_guidance_scale": 1.0},
    "distilled": {"preset": "distilled"},
}


@dataclass
class Prompt:
    """What is asked for."""

    text: str
    seed: int
    scene: Scene

    @property
    def wanted(self) -> dict[str, str]:
        """Attribute to name, of those that the text names."""
        item, scene = self.scene.items[0], self.scene
        found = {"colour": item.colour, "shape": item.shape, "motion": item.motion}
        if item.motion in DIRECTIONS:
            found["direction"] = item.motion
        if scene.background_said:
            found["background"] = scene.background
        # Clicks come with bounces, whose times are the clip's own affair.
        if scene.sound_said and scene.sound != "click":
            found["sound"] = scene.sound
            if scene.sound != "silence":
                found["pitch"] = scene.sound.split("_")[0]
        return found


def prompts(count: int, first_seed: int = FIRST_SEED) -> list[Prompt]:
    """Of one shape each."""
    found = []
    for seed in range(first_seed + 1, first_seed + 1 + count):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, two=0)
        found.append(Prompt(caption(scene, rng), seed, scene))
    return found


def right(prompt: Prompt, reading: Reading) -> dict[str, bool]:
    """For each attribute that is named."""
    seen = {**vars(reading), "pitch": reading.pitch, "direction": reading.motion}
    return {name: seen[name] == value for name, value in prompt.wanted.items()}


@dataclass
class Score:
    """Counts over clips."""

    hits: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def add(self, verdict: dict[str, bool], seconds: float) -> None:
        """One clip."""
        self.hits.update({name: int(hit) for name, hit in verdict.items()})
        self.counts.update(verdict.keys())
        self.seconds.append(seconds)

    def share(self, name: str) -> float:
        """Of clips whose prompt names it."""
        return self.hits[name] / max(1, self.counts[name])


ATTRIBUTES = ("colour", "shape", "motion", "direction", "background", "sound", "pitch")


def reading_of(video: Any) -> Reading:
    """What a generated clip shows."""
    wave = np.asarray(video.audio).mean(0) if video.audio is not None else np.zeros(HIGH_RATE, np.float32)
    return read_clip(np.asarray(video.frames), wave, video.sample_rate or HIGH_RATE)


def score(pipe: Any, wanted: list[Prompt], how: dict[str, Any]) -> Score:
    """Makes and reads them all."""
    total = Score()
    for prompt in wanted:
        began = time.perf_counter()
        video = pipe.generate(prompt.text, seed=prompt.seed, **how)
        seconds = time.perf_counter() - began
        total.add(right(prompt, reading_of(video)), seconds)
    return total


def first_frame_psnr(pipe: Any, wanted: list[Prompt], crf: int | None) -> float:
    """Median in dB between a picture that is given and the first frame; crf: how much the picture is compressed first.

    None: as it is by default, which is how the released checkpoints were trained; 0: not at all.
    """
    found = []
    for prompt in wanted:
        given = render_pictures(prompt.scene, np.random.default_rng(prompt.seed))[0]
        condition = sdltx.Condition(given) if crf is None else sdltx.Condition(given, crf=crf)
        video = pipe.generate(prompt.text, seed=prompt.seed, conditions=[condition])
        error = np.mean((np.asarray(video.frames)[0].astype(float) - given) ** 2)
        found.append(float(10 * np.log10(255**2 / max(error, 1e-9))))
    return float(np.median(found))


def variant(folder: Path, kind: str, into: Path) -> Path:
    """The model in another type of weights, Gemma as it is."""
    if kind == "keep":
        return folder
    sdltx.convert(*files_of(folder), output=f"{into}/", type=kind)
    (into / "gemma").symlink_to(folder / "gemma")
    return into


def files_of(folder: Path) -> list[Path]:
    """Of all parts but Gemma."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf"))


def size_of(folder: Path) -> float:
    """Of all its files, MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=BUILT_IN)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=20, help="clips that begin with a picture")
    parser.add_argument("--variants", default="keep")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sheet", type=Path, help="picture of 12 clips of the default way")
    args = parser.parse_args()
    wanted = prompts(args.clips)
    print(f"| weights | way | {' | '.join(ATTRIBUTES)} | s a clip |")
    print("| --- " * (len(ATTRIBUTES) + 3) + "|")
    notes = []
    with tempfile.TemporaryDirectory() as scratch:
        for kind in args.variants.split(","):
            folder = variant(args.model.resolve(), kind, Path(scratch) / kind)
            with sdltx.load(*files_of(folder), folder / "gemma") as pipe:
                for way in args.ways.split(","):
                    total = score(pipe, wanted, WAYS[way])
                    cells = [f"{100 * total.share(name):.1f} %" for name in ATTRIBUTES]
                    print(f"| {kind} | {way} | {' | '.join(cells)} | {np.median(total.seconds):.2f} |", flush=True)
                if kind == "keep" and args.pictures:
                    some = wanted[: args.pictures]
                    plain, compressed = (first_frame_psnr(pipe, some, crf) for crf in (0, None))
                    notes.append(
                        f"First frame against a given picture: {plain:.1f} dB, compressed {compressed:.1f} dB."
                    )
                if kind == "keep" and args.sheet:
                    sheets.write(pipe, wanted[:12], args.sheet)
            notes.append(f"{kind}: {size_of(folder):.1f} MB.")
    print("\nClips whose prompt names it: " + ", ".join(f"{name} {total.counts[name]}" for name in ATTRIBUTES) + ".")
    print("\n".join(notes))


if __name__ == "__main__":
    main()
