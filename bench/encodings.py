"""Steps with weights in eight bits against BF16, in turns: time, and memory against the size of the file.

    python bench/encodings.py [--blocks 4] [--size 256x256x17] [--rows 1024]

The model files are written to --folder, and used again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def child(path: str, size: str, rows: int) -> None:
    """Makes steps; prints seconds of the later ones, and what of memory weights take."""
    import numpy as np
    import steps

    import sdltx

    with sdltx.load(path) as pipe:
        before = _resident()
        latents, seen = steps.sample(pipe, size, rows, 3, lambda: None)
        memory = _resident() - before - pipe.memory()[0]["working"]
    finite = bool(np.isfinite(latents.video).all())
    print(json.dumps({"seconds": min(steps.seconds(seen)), "memory": memory, "finite": finite}))


def _resident() -> int:
    """Bytes of memory, those of files included."""
    import steps

    return steps.counted("/proc/self/status", "VmRSS") << 10


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
