"""CPU kernels against each other: the times of a clip as ratios of the first, from runs in turns.

python bench/kernels.py x86-64-v4+bf16 x86-64-v3 x86-64-v2
python bench/kernels.py x86-64-v4+bf16 /folder/with/another/sdltx    # such as one of an earlier commit

Prints median and range of each ratio. Every run is a process of its own that takes the processor time of
denoising and decoding with the built-in model, after one run of each to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CHILD = """
import json, sys, time
import sdltx
times = {}
def timed(name, f):
    f()
    start = time.process_time()
    result = f()
    times[name] = time.process_time() - start
    return result
with sdltx.load(threads=1) as pipe:
    context = pipe.encode("a red circle moves left")
    size = dict(width=256, height=256, num_frames=33, num_inference_steps=2, seed=1)
    latents = timed("denoise", lambda: pipe.sample(context, **size))
    timed("decode", lambda: pipe.decode(latents))
print(json.dumps(times))
"""


def run(kernels: str) -> dict[str, float]:
    environment = dict(os.environ)
    if Path(kernels).is_dir():
        environment["PYTHONPATH"] = kernels
    else:
        environment["SDLTX_CPU_KERNELS"] = kernels
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    times: dict[str, float] = json.loads(done.stdout)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kernels", nargs="+", help="a name of `sdltx-cli doctor`, or a folder that holds a package")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    ratios: dict[tuple[str, str], list[float]] = {}
    for _ in range(args.rounds):
        first, *others = [(kernels, run(kernels)) for kernels in args.kernels]
        for kernels, times in others:
            for name, seconds in times.items():
                ratios.setdefault((kernels, name), []).append(seconds / first[1][name])
    for (kernels, name), values in ratios.items():
        low, high = min(values), max(values)
        print(f"{name:8} {kernels}: {statistics.median(values):.2f} ({low:.2f} to {high:.2f}) of {args.kernels[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
