"""Steps of a transformer that does not fit into memory: time, and what is read, by two programs in turns.

    python bench/stream.py --before ENV/bin/python --limit 4.5G

Runs as root or where a cgroup for memory can be made; the limit counts the file cache, too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
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

_GB = 1e9
_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@contextmanager
def limited(limit: str) -> Iterator[Path]:
    """Gives a cgroup that may take so much memory."""
    unified = (_V2 / "cgroup.controllers").exists()
    folder = (_V2 if unified else _V1) / f"sdltx-bench-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(limit)
        yield folder
    finally:
        folder.rmdir()


def child(path: str, size: str, rows: int, offload: str, steps: int) -> None:
    """Makes steps; prints seconds, and bytes read from the disk, of each."""
    import numpy as np
    import steps as runs

    import sdltx

    given: dict[str, Any] = {"offload": offload} if offload != "default" else {}
    with sdltx.load(path, **given) as pipe:
        begin = (time.monotonic(), _read())
        latents, seen = runs.sample(pipe, size, rows, steps, _read)
        pages = [one["mapped"] for one in pipe.memory()]
    told = [{"seconds": b[0] - a[0], "read": b[1] - a[1]} for a, b in itertools.pairwise([begin, *seen])]
    print(json.dumps({"steps": told, "mapped": pages, "sum": float(np.abs(latents.video).sum())}))


def _read() -> int:
    import steps

    return steps.counted("/proc/self/io", "read_bytes")


def measure(python: str, cgroup: Path | None, arguments: list[str]) -> dict[str, Any]:
    """Runs a child that begins with nothing of its files in memory."""
    fd = os.open(arguments[0], os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)

    def enter() -> None:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    done = subprocess.run(
        [python, __file__, "--child", *arguments],
        stdout=subprocess.PIPE,
        check=True,
        preexec_fn=enter,
        cwd=tempfile.gettempdir(),
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=5)
    parser.add_argument("--before", help="the Python of another version")
    parser.add_argument("--limit", default="4.5G")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--size", default="64x64x9")
    parser.add_argument("--rows", default="64")
    parser.add_argument("--offload", default="default")
    parser.add_argument("--steps", default="4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    if args.child:
        path, size, rows, offload, steps = args.child
        child(path, size, int(rows), offload, int(steps))
        return
    import weights

    path = weights.blocks(args.folder, args.blocks)
    arguments = [str(path), args.size, args.rows, args.offload, args.steps]
    told: dict[str, list[dict[str, Any]]] = {}
    runs = [("ours", sys.executable, args.limit), ("in memory", sys.executable, None)]
    if args.before:
        runs.insert(1, ("before", args.before, args.limit))
    for _ in range(args.rounds):
        for name, python, limit in runs:
            given = [*arguments[:3], "none" if name == "before" else args.offload, arguments[4]]
            if limit is None:
                told.setdefault(name, []).append(measure(python, None, given))
            else:
                with limited(limit) as cgroup:
                    told.setdefault(name, []).append(measure(python, cgroup, given))
    print(f"{path.stat().st_size / _GB:.2f} GB of weights, limit {args.limit}, {args.size}, {args.rows} rows")
    for name, found in told.items():
        later = [step for one in found for step in one["steps"][1:]]
        first = [one["steps"][0]["read"] / _GB for one in found]
        print(
            f"{name:10} step {statistics.median(step['seconds'] for step in later):.2f} s, "
            f"reads {statistics.median(step['read'] for step in later) / _GB:.2f} GB a step "
            f"({min(step['read'] for step in later) / _GB:.2f} to {max(step['read'] for step in later) / _GB:.2f}), "
            f"{statistics.median(first):.2f} GB in the first; result {found[0]['sum']:.6f}"
        )
    seconds = {
        name: [statistics.median(s["seconds"] for s in one["steps"][1:]) for one in found]
        for name, found in told.items()
    }
    for name in list(seconds)[1:]:
        ratios = [ours / other for ours, other in zip(seconds["ours"], seconds[name], strict=True)]
        print(f"ours / {name}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
