"""Steps on a device without host memory, whose blocks are copied for each use: what is copied, and what it saves to
bring the next block while one is computed.

    python bench/worker.py [--blocks 4] [--size 256x256x17] [--rows 64]

The device is a worker on loopback: bytes are those of the interface `lo`, which nothing else should use meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


@contextmanager
def worker() -> Iterator[str]:
    """Gives the name of a device that is another process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sdltx", "worker", "--port", str(port), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.1)
        yield f"rpc:127.0.0.1:{port}"
    finally:
        process.kill()


def sent() -> int:
    """Bytes that loopback has carried."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--size", default="256x256x17")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    import numpy as np
    import weights

    import sdltx

    width, height, frames = map(int, args.size.split("x"))
    size: dict[str, Any] = {"width": width, "height": height, "num_frames": frames, "preset": "distilled"}
    size["sigmas"] = [1 - i / args.steps for i in range(args.steps)] + [0]
    rng = np.random.default_rng(0)
    context = sdltx.Context(
        rng.standard_normal((args.rows, 4096), np.float32) * np.float32(0.1),
        rng.standard_normal((args.rows, 2048), np.float32) * np.float32(0.1),
    )
    path = weights.blocks(args.folder, args.blocks)
    seconds: dict[str, list[float]] = {"ahead": [], "in turn": []}
    copied: dict[str, list[int]] = {"ahead": [], "in turn": []}
    with worker() as device, sdltx.load(path, device=device, offload="blocks", threads=1) as pipe:
        (step,) = (one for one in pipe.estimate(**size)["steps"] if one["step"] == "denoise")
        used = step["devices"][0]
        # With room for one block and no more, none is brought ahead.
        rooms = {"ahead": 1 << 40, "in turn": used["weights"] + used["inputs"] + used["working"]}
        for _ in range(args.rounds):
            for name, room in rooms.items():
                pipe._core.pretend_memory([room, 1 << 40])
                seen: list[tuple[float, int]] = []
                pipe.sample(
                    context, seed=1, **size, on_step=lambda *_, seen=seen: seen.append((time.monotonic(), sent()))
                )
                pairs = list(itertools.pairwise(seen))
                seconds[name].append(statistics.median(b[0] - a[0] for a, b in pairs))
                copied[name].append(round(statistics.median(b[1] - a[1] for a, b in pairs)))
    print(f"{path.stat().st_size / 1e9:.2f} GB, {args.size}; estimated: {step['brought'] / 1e9:.2f} GB brought a step")
    for name in seconds:
        print(f"{name:8} step {statistics.median(seconds[name]):.2f} s, {copied[name][0] / 1e9:.2f} GB over loopback")
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    print(f"ahead / in turn: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
