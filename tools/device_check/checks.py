"""The checks of a device, and the process that each of them runs in: whatever it ends with, the others go on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""What was found out: a name, figures, and "ok" where there is a right and a wrong."""


@dataclass(frozen=True)
class Run:
    """What is checked, and how thoroughly."""

    device: str
    """As ``device`` of sdltx.load takes it."""
    data: Path
    """Folder with tiny-a, tiny-w (models and what the reference makes of them) and real (shapes of the release)."""
    models: Path
    """Folder for models of the release's widths, which are made when they are needed."""
    size: tuple[int, int, int]
    """Of clips at those widths: width, height, frames."""
    quick: bool
    """Small models in place of those, and few clips: this way through, and no figures of worth."""

    def relative(self, found: Any, wanted: Any, tolerance: float = 1e-2) -> Row:
        """Root mean square of the difference as a share of that of ``wanted``."""
        import numpy as np

        a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        if a.shape != b.shape:
            return {"error": f"shape {a.shape}, expected {b.shape}", "ok": False}
        error = float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean(b**2)))
        if not np.isfinite(error):
            return {"error": "not finite", "tolerance": tolerance, "ok": False}
        return {"error": error, "tolerance": tolerance, "ok": bool(np.isfinite(a).all() and error <= tolerance)}


Check = Callable[[Run], Iterator[Row]]


def of_child(check: Check, run: Run) -> None:
    """Prints rows as lines of JSON, each as soon as it is known."""
    for row in check(run):
        print(json.dumps(row), flush=True)


def child(name: str, arguments: list[str], seconds: float) -> dict[str, Any]:
    """Runs a check in a process of its own, for so long at most: {"rows", "seconds", "problem"}; the last may be ""."""
    command = [sys.executable, sys.argv[0], *arguments, "--child", name]
    start = time.monotonic()
    problem = ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=max(seconds, 1))
        out, told = done.stdout, done.stderr
        if done.returncode:
            problem = f"ended with {done.returncode}: {told.strip()[-2000:]}"
    except subprocess.TimeoutExpired as error:
        out, told = (
            text.decode(errors="replace") if isinstance(text, bytes) else text or ""
            for text in (error.stdout, error.stderr)
        )
        problem = f"stopped after {seconds:.0f} s {told.strip()[-2000:]}".strip()
    rows = [row for line in out.splitlines() if (row := _row(line))]
    if not rows and not problem:
        problem = "told nothing"
    return {"rows": rows, "seconds": round(time.monotonic() - start, 1), "problem": problem}


def _row(line: str) -> Row | None:
    """What a check tells in a line; other lines are of drivers."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "name" in row else None


def is_well(part: dict[str, Any]) -> bool:
    """Whether nothing in it is wrong."""
    return not part["problem"] and all(row.get("ok", True) for row in part["rows"])


def arguments_of(args: argparse.Namespace) -> list[str]:
    """What makes the same Run in a child."""
    given = ["--device", args.device, "--size", args.size, "--models", str(args.models), "--data", str(args.data)]
    return [*given, "--quick"] if args.quick else given
