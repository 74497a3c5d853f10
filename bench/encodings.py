"""Steps with weights in eight bits against BF16, in turns: time, and memory against the size of the file.

python bench/encodings.py [--blocks 4] [--size 256x256x17] [--rows 1024]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def child(path: str, size: str, rows: int) -> None:
    """Makes steps; prints seconds of the later ones, and what of memory weights take."""
    import numpy as np

    import sdltx

    width, height, frames = map(int, size.split("x"))
    context = sdltx.Context(
        np.full((rows, 4096), np.float32(0.1)),
        np.full((rows, 2048), np.float32(0.1)),
    )
    seen: list[float] = []
    with sdltx.load(path) as pipe:
        before = _resident()
        latents = pipe.sample(
            context,
            width=width,
            height=height,
            num_frames=frames,
            seed=1,
            sigmas=[1, 0.7, 0.4, 0],
            preset="distilled",
            on_step=lambda *_: seen.append(time.monotonic()),
        )
        working = pipe.memory()[0]["working"]
        memory = _resident() - before - working
    seconds = min(b - a for a, b in itertools.pairwise(seen))
    print(json.dumps({"seconds": seconds, "memory": memory, "finite": bool(np.isfinite(latents.video).all())}))


def _resident() -> int:
    """Bytes of memory, those of files included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) << 10


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=3)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--size", default="256x256x17")
    parser.add_argument("--rows", default="1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1], int(args.child[2]))
        return
    import weights

    kinds = ("BF16", "FP8", "MXFP8")
    paths = {kind: weights.blocks(args.folder, args.blocks, kind) for kind in kinds}
    told: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(args.rounds):
        for kind, path in paths.items():
            arguments = [sys.executable, __file__, "--child", str(path), args.size, args.rows]
            told[kind].append(json.loads(subprocess.run(arguments, stdout=subprocess.PIPE, check=True).stdout))
    for kind, found in told.items():
        size = paths[kind].stat().st_size
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(found, told["BF16"], strict=True)]
        print(
            f"{kind:6} {size / 1e9:.2f} GB, in memory {statistics.median(one['memory'] for one in found) / size:.3f} "
            f"of it; a step {statistics.median(one['seconds'] for one in found):.2f} s, "
            f"{statistics.median(ratios):.3f} of BF16 ({min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
