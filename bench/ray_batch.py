"""A batch on a Ray cluster of this machine: with one worker, with two, and without Ray, by turns.

    python bench/ray_batch.py [--clips 16] [--rounds 3]

A worker has one thread here, so that two of them have twice the cores of one. Prints medians and ratios; the time to
start and to load the model, which is there once for a batch, is told apart: it is that of a batch of one clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from ray_nodes import ENV, Nodes


def took(jobs: Path, output: Path, on: list[str]) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "sdltx", "batch", jobs, "-o", output, "-q", "-t", 1, *on]
    subprocess.run([str(one) for one in command], check=True, env=ENV)
    return time.perf_counter() - start


def lines(path: Path, count: int) -> Path:
    line = {"prompt": "a red circle", "width": 128, "height": 128, "num_frames": 25, "num_inference_steps": 12}
    path.write_text("\n".join(json.dumps({**line, "seed": seed}) for seed in range(count)))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Nodes() as one, Nodes() as two:
        two.add()
        time.sleep(10)
        many, single = lines(Path(folder) / "many", args.clips), lines(Path(folder) / "single", 1)
        ways = {"without Ray": [], "one worker": ["--on", one.address], "two workers": ["--on", two.address]}
        found: dict[str, list[float]] = {name: [] for name in ways}
        starts: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(args.rounds):
            for name, on in ways.items():
                starts[name].append(took(single, Path(folder) / f"s{number}{name[:3]}", on))
                found[name].append(took(many, Path(folder) / f"m{number}{name[:3]}", on))
        alone = statistics.median(found["without Ray"])
        for name, seconds in found.items():
            middle = statistics.median(seconds)
            times, first = alone / middle, statistics.median(starts[name])
            print(f"{name:<12} {middle:6.1f} s, {times:.2f} times as fast; {first:.1f} s for one clip")


if __name__ == "__main__":
    main()
