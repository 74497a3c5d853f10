"""What the model makes of sounds and films, read by measures.py: for docs/demo.md, with a sheet of one of each.

python material.py [--clips 24] [--sheet docs/material.png]
"""

from __future__ import annotations

import argparse
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from clips import make_clip
from evaluate import FIRST_SEED
from measures import bounce_times, masks_of, read_clip
from PIL import Image, ImageDraw
from scenes import FPS, SIZE
from sheets import FRAMES, GAP, SOUND, TEXT, strip
from sounds import HIGH_RATE, render_sound

import sdltx

COLOURS = ("red", "blue", "green", "yellow")


@cache
def bounces(number: int) -> tuple[str, np.ndarray, list[float], str, str]:
    """A clip of the world that it knows, that bounces and clicks: prompt, sound, times, colour and shape."""
    seed = FIRST_SEED + number * 10_000
    while True:
        clip = make_clip(seed)
        item = clip.scene.items[0]
        if len(clip.scene.items) == 1 and clip.scene.sound == "click" and "bounc" in item.motion:
            wave = render_sound(clip.scene, len(clip.pictures) / FPS, HIGH_RATE)
            text = f"a {item.colour} {item.shape} bounces over a {clip.scene.background} background, with clicks"
            return text, wave, list(clip.scene.hits), item.colour, item.shape
        seed += 1


def misses(bounced: list[float], hits: list[float]) -> float:
    """Mean seconds from a bounce to the nearest click; nothing bounces: half a period."""
    return float(np.mean([min(abs(b - h) for h in hits) for b in bounced])) if bounced else 0.25


def sounds(pipe: sdltx.Pipeline, count: int) -> None:
    """Prints how well pictures keep to clicks that are given, and to others."""
    own, others, right = [], [], 0
    for i in range(count):
        prompt, wave, hits, colour, shape = bounces(i)
        video = pipe.generate(prompt, sound=(np.stack([wave, wave]), HIGH_RATE), seed=i)
        read = read_clip(video.frames, wave, HIGH_RATE)
        right += (read.colour, read.shape) == (colour, shape)
        bounced = bounce_times(masks_of(video.frames, read.background))
        own.append(misses(bounced, hits))
        others.append(misses(bounced, bounces((i + 1) % count)[2]))
    print(
        f"pictures for clicks: colour and shape of {right} of {count} as the prompt says; a bounce is "
        f"{np.mean(own):.3f} s from the nearest click, and {np.mean(others):.3f} s from those of another clip"
    )


def films(pipe: sdltx.Pipeline, count: int) -> None:
    """Prints what prompts change in films: colours of retakes and extensions, sounds of foley."""
    found = {"retake of all": 0, "retake of a half (as the film)": 0, "extend (as the film)": 0, "foley": 0}
    for i in range(count):
        old, new = COLOURS[i % 4], COLOURS[(i + 1) % 4]
        film = pipe.generate(f"a {old} circle stands still over a navy background, with low tones", seed=i)
        prompt = f"a {new} circle stands still over a navy background, with high beeps"

        def colour(frames: np.ndarray) -> str:
            return read_clip(frames, np.zeros(HIGH_RATE, np.float32), HIGH_RATE).colour

        video = pipe.generate(prompt, film=film, retake=(0, 9), seed=i)
        found["retake of all"] += colour(video.frames) == new
        # What is seen of the film counts for more than the prompt.
        video = pipe.generate(prompt, film=film, retake=(1.2, 2), seed=i)
        found["retake of a half (as the film)"] += colour(video.frames[17:25]) == old
        # It goes on as it was: the film decides.
        longer = pipe.generate(f"a {old} circle stands still over a navy background", film=film, extend=0.6, seed=i)
        found["extend (as the film)"] += colour(longer.frames[26:]) == old
        heard: Any = pipe.generate(prompt, film=film, foley=True, seed=i)
        found["foley"] += read_clip(heard.frames, heard.audio.mean(0), heard.sample_rate).pitch == "high"
    print(
        f"of {count} films, as the prompt says unless told otherwise: "
        + ", ".join(f"{name} {n}" for name, n in found.items())
    )


def sheet(pipe: sdltx.Pipeline, path: Path) -> None:
    """One of each."""
    prompt, wave, *_ = bounces(1)
    film = pipe.generate("a red star moves right over a navy background, with low beeps", seed=4)
    mask = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    mask[:, :, SIZE // 2 :] = 255
    other = "a yellow circle moves right over a navy background, with high beeps"
    rows = [
        (f"pictures for clicks that are given: {prompt}", pipe.generate(prompt, sound=(wave[None], HIGH_RATE), seed=1)),
        ("a film", film),
        (f"its retake from 1.2 to 2 s: {other}", pipe.generate(other, film=film, retake=(1.2, 2), seed=2)),
        (f"made anew on its right: {other}", pipe.generate(other, film=sdltx.Film(film, sdltx.Video(mask)), seed=2)),
        (
            "it goes on for 0.7 s",
            pipe.generate("a red star moves right over a navy background", film=film, extend=0.7, seed=2),
        ),
        (
            "it begins 0.7 s earlier",
            pipe.generate("a red star moves right over a navy background", film=film, extend_before=0.7, seed=2),
        ),
        (f"sound for it: {other}", pipe.generate(other, film=film, foley=True, seed=2)),
    ]
    width, height = FRAMES * SIZE, TEXT + SIZE + SOUND + GAP
    page = Image.new("RGB", (width, len(rows) * height - GAP), "white")
    draw = ImageDraw.Draw(page)
    for i, (text, video) in enumerate(rows):
        draw.text((0, i * height), textwrap.fill(text, 105), fill="black")
        picture = strip(np.asarray(video.frames), video.audio.mean(0), video.sample_rate or 1)
        page.paste(Image.fromarray(picture), (0, i * height + TEXT))
    page.save(path, optimize=True)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    with sdltx.load() as pipe:
        if args.sheet:
            sheet(pipe, args.sheet)
        sounds(pipe, args.clips)
        films(pipe, args.clips)


if __name__ == "__main__":
    main()
