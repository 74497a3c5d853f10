"""All stages of the demo model in order. What is done is skipped, what was begun goes on.

python train.py [--runs runs] [--threads 2] [--scale 1.0]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Each stage is a program of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps and clips")
    args = parser.parse_args()
    runs = args.runs.resolve()
    runs.mkdir(parents=True, exist_ok=True)

    def steps(n: int) -> list[str]:
        return ["--steps", str(max(10, round(n * args.scale)))]

    clips = str(max(500, round(12000 * args.scale)))
    samples = str(max(300, round(2500 * args.scale)))
    stages: list[tuple[str, list[str]]] = [
        ("tokenizer", []),
        ("video_vae", steps(12000)),
        ("audio_vae", steps(1000)),
        ("vocoder", steps(1100)),
        ("latents", ["--count", clips]),
        ("transformer", [*steps(12000), "--compile"]),
        ("export", ["--out", str(runs / "weights")]),
        ("samples", ["--model", str(runs / "weights"), "--count", samples]),
        ("decoder", steps(5000)),
        ("export", ["--out", str(runs / "weights")]),
    ]
    for number, (name, arguments) in enumerate(stages, 1):
        done = runs / f"{number}_{name}.done"
        if done.exists():
            print(f"{name}: done before", flush=True)
            continue
        threads = [] if name in ("tokenizer", "export") else ["--threads", str(args.threads)]
        command = [sys.executable, str(HERE / f"{name}.py"), "--runs", str(runs), *arguments, *threads]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(command, check=True)
        done.touch()


if __name__ == "__main__":
    main()
