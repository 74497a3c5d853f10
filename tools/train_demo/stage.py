"""The command line of a stage that trains."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch


def parser(description: str | None, steps: int, batch: int, rate: float) -> argparse.ArgumentParser:
    """With the options that all of them have, and these defaults."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all checkpoints (default: runs)")
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--batch", type=int, default=batch)
    made.add_argument("--rate", type=float, default=rate, help=f"learning rate (default: {rate:g})")
    made.add_argument("--threads", type=int, default=2)
    return made


def run(parser: argparse.ArgumentParser, train: Callable[[argparse.Namespace], None]) -> None:
    """Trains as the command line says."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)
