"""One side of a pair: prepares a job, runs it whenever a line comes in, and says how long it took. For run.py.

python child.py sdltx|torch JOB THREADS RESULT.npy [ARGUMENT...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import numpy as np


def main() -> int:
    peer, job, threads, result, *arguments = sys.argv[1:]
    jobs = import_module(f"jobs_{peer}")
    run: Callable[[], tuple[float, np.ndarray]] = getattr(jobs, job)(int(threads), *arguments)
    _, first = run()  # warms up
    np.save(result, first)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(run()[0], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
