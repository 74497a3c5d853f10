"""What dry runs of a GPU do: networks at real sizes, each in a process of its own, and a count of what goes where."""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sdltx

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import weights

# How ggml's scheduler tells where it puts a node.
NODE = re.compile(r"node #\s*\d+ \(\s*(\S+)\):.*?\[\s*(\S+)")
PEAK = re.compile(r"peak of (\d+) MiB")
SHARES = (0.99, 0.97, 0.95, 0.92, 0.88, 0.8, 0.7, 0.5, 0.3)  # of a job's peak, to try with


def denoise(path: Path, size: tuple[int, int, int], device: str) -> None:
    """Two steps of two blocks of the transformer."""
    width, height, frames = size
    context = sdltx.Context(np.zeros((1024, 4096), np.float32), np.zeros((1024, 2048), np.float32))
    with sdltx.load(path, device=device) as pipe:
        options: dict[str, Any] = {"sigmas": [1.0, 0.5, 0.0], "preset": "distilled", "seed": 1}
        pipe.sample(context, width=width, height=height, num_frames=frames, frame_rate=24, **options)


def video(path: Path, size: tuple[int, int, int], device: str) -> None:
    """Latents to pictures."""
    width, height, frames = size
    latents = np.zeros((128, (frames - 1) // 8 + 1, height // 32, width // 32), np.float32)
    with sdltx.load(path, device=device) as pipe:
        pipe.decode(sdltx.Latents(latents, None, 24))


def picture(path: Path, size: tuple[int, int, int], device: str) -> None:
    """Pictures to latents, 25 at most."""
    width, height, frames = size
    with sdltx.load(path, device=device) as pipe:
        pipe.encode_video(np.zeros((min(frames, 25), height, width, 3), np.uint8))


def sound(path: Path, size: tuple[int, int, int], device: str) -> None:
    """Latents to sound, and back."""
    count = round(25 * size[2] / 24)
    latents = sdltx.Latents(np.zeros((128, 1, 2, 2), np.float32), np.zeros((8, count, 16), np.float32), 24)
    with sdltx.load(path, device=device) as pipe:
        pipe.decode_audio(latents)
        pipe.encode_audio(np.zeros((2, 16000 * 5), np.float32), 16000)


def gemma(path: Path, other: Path, device: str) -> None:
    """A prompt of 800 tokens through Gemma 3 270M."""
    with sdltx.load(path, other, device=device) as pipe:
        pipe._core.hidden_states("a red fox walks " * 200)


def demo(device: str) -> None:
    """A clip of the built-in model, from its prompt to its sound."""
    with sdltx.load(device=device) as pipe:
        pipe.generate("a red triangle moves right", num_inference_steps=2, seed=1)


def jobs(models: Path, size: tuple[int, int, int], device: str) -> dict[str, Callable[[], None]]:
    """By name; files are made when they are needed first."""

    def quantised() -> Path:
        path = models / "two-blocks-q8_0.gguf"
        if not path.exists():
            sdltx.convert(weights.two_blocks(models), output=path, type="q8_0")
        return path

    return {
        "demo": lambda: demo(device),
        "gemma": lambda: gemma(weights.gemma(models), weights.two_blocks(models), device),
        "denoise": lambda: denoise(weights.two_blocks(models), size, device),
        "denoise-q8_0": lambda: denoise(quantised(), size, device),
        "picture": lambda: picture(weights.decoders(models), size, device),
        "video": lambda: video(weights.decoders(models), size, device),
        "sound": lambda: sound(weights.decoders(models), size, device),
    }


class Placement(logging.Handler):
    """Counts operations by the device that the scheduler gives them to."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: collections.Counter[tuple[str, str]] = collections.Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """One line of ggml's."""
        if found := NODE.match(record.getMessage()):
            self.nodes[found[1], found[2]] += 1


def of_child(job: Callable[[], None]) -> None:
    """Prints where operations went, as JSON, or that there was too little memory."""
    placement = Placement()
    logger = logging.getLogger("sdltx")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(placement)
    try:
        job()
    except sdltx.OutOfMemoryError as error:
        print(json.dumps({"out_of_memory": str(error)}))
        return
    left = {op: n for (op, device), n in placement.nodes.items() if device == "CPU"}
    print(json.dumps({"operations": sum(placement.nodes.values()), "cpu": left}))


def child(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One job in a process of its own."""
    command = [sys.executable, *sys.argv, "--child", name]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def tried(name: str, environment: dict[str, str], squeeze: bool) -> bool:
    """One job, and a line about it; whether all of it went well."""
    done = child(name, environment)
    told = [line.removeprefix("dry run: ") for line in done.stderr.splitlines() if line.startswith("dry run: ")]
    counts = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    if "cpu" not in counts:
        print(f"{name}: {counts.get('out_of_memory', 'failed')}\n{done.stderr}", flush=True)
        return False
    left = ", ".join(f"{n} {op}" for op, n in sorted(counts["cpu"].items())) or "none"
    refused = sum(" refused: " in line for line in told)
    print(f"{name}: {counts['operations']} operations, on the CPU {left}; {'; '.join(told)}", flush=True)
    peak = next(int(found[1]) for line in told if (found := PEAK.match(line)))
    well = counts["operations"] and not counts["cpu"] and not refused
    return bool(well) and (not squeeze or _ends_well(name, environment, peak))


def _ends_well(name: str, environment: dict[str, str], peak: int) -> bool:
    """Whether it ends with a clip or an error of ours, however little memory there is."""
    for share in SHARES:
        done = child(name, {**environment, "DRY_RUN_MEMORY_MIB": str(round(share * peak))})
        if done.returncode:
            print(f"{name}: with {share:.0%} of that: {done.stderr.strip().splitlines()[-1]}", flush=True)
            return False
        counts = json.loads(done.stdout.splitlines()[-1])
        print(f"{name}: with {share:.0%} of that: {counts.get('out_of_memory', 'done')}", flush=True)
    return True


def main(
    parser: argparse.ArgumentParser,
    device: str,
    build: Callable[[Path], None],
    environments: Callable[[argparse.Namespace], dict[str, dict[str, str]]],
) -> int:
    """All jobs, or, with --child, one; returns the status to end with.

    parser: has the options of one kind of GPU. build: makes what stands in for its libraries in a folder.
    environments: what tells those of each card, by the card's name.
    """
    parser.add_argument("--size", default="768x512x121", help="width x height x frames (default: %(default)s)")
    parser.add_argument("--jobs", help="separated by commas (default: all)")
    parser.add_argument("--memory", type=int, default=24, help="the GPU's, GiB (default: %(default)s)")
    parser.add_argument("--squeeze", action="store_true", help="run each again with less memory than it took")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir(), "sdltx-bench"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height, frames = (int(n) for n in args.size.split("x"))
    args.models.mkdir(parents=True, exist_ok=True)
    known = jobs(args.models, (width, height, frames), device)
    if args.child:
        of_child(known[args.child])
        return 0
    wanted = args.jobs.split(",") if args.jobs else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no job {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        always = {"LD_LIBRARY_PATH": folder, "GGML_SCHED_DEBUG": "2", "DRY_RUN_MEMORY_MIB": str(args.memory << 10)}
        for card, environment in environments(args).items():
            print(f"{card}:", flush=True)
            failed += [name for name in wanted if not tried(name, {**always, **environment}, args.squeeze)]
    return 1 if failed else 0
