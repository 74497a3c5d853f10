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
    import steps

    return steps.counted("/proc/net/dev", "lo:")


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
    import steps
    import weights

    import sdltx
    import sdltx._core_tests

    path = weights.blocks(args.folder, args.blocks)
    seconds: dict[str, list[float]] = {"ahead": [], "in turn": []}
    copied: dict[str, list[int]] = {"ahead": [], "in turn": []}
    with worker() as device, sdltx.load(path, device=device, offload="blocks", threads=1) as pipe:
        told = pipe.estimate(**steps.sizes(args.size), preset="distilled")
        (step,) = (one for one in told["steps"] if one["step"] == "denoise")
        used = step["devices"][0]
        # With room for one block and no more, none is brought ahead.
        rooms = {"ahead": 1 << 40, "in turn": used["weights"] + used["inputs"] + used["working"]}
        for _ in range(args.rounds):
            for name, room in rooms.items():
                pipe._core.pretend_memory([room, 1 << 40])
                _, seen = steps.sample(pipe, args.size, args.rows, args.steps, sent)
                seconds[name].append(statistics.median(steps.seconds(seen)))
                carried = [b[1] - a[1] for a, b in itertools.pairwise(seen)]
                copied[name].append(round(statistics.median(carried)))
    print(f"{path.stat().st_size / 1e9:.2f} GB, {args.size}; estimated: {step['brought'] / 1e9:.2f} GB brought a step")
    for name in seconds:
        print(f"{name:8} step {statistics.median(seconds[name]):.2f} s, {copied[name][0] / 1e9:.2f} GB over loopback")
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    print(f"ahead / in turn: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
