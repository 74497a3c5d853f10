"""Stage: latents as sampling leaves them, with the scenes that were asked for; made by sdltx, of the exported model.

Like the latents of clips, they are neither shifted nor scaled. decoder.py learns from them.
"""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import torch
from captions import caption
from evaluate import files_of
from optim import save
from scenes import sample_scene
from video_vae import harden

import sdltx

FIRST_SEED = 3 * 10**8
CHUNK = 100  # clips of a file


def sample(model: Path, runs: Path, count: int, threads: int) -> None:
    """Writes those files of runs/samples that are not there yet."""
    mean, std = (value.view(-1, 1, 1, 1) for value in torch.load(runs / "transformer.pt")["statistics"][:2])
    with sdltx.load(*files_of(model), model / "gemma", threads=threads) as pipe:
        empty = pipe.encode("")
        for first in range(FIRST_SEED, FIRST_SEED + count, CHUNK):
            path = runs / "samples" / f"{first}.pt"
            if path.exists():
                continue
            found, scenes = [], []
            for seed in range(first, first + CHUNK):
                rng = np.random.default_rng(seed)
                scene = sample_scene(rng, two=0)
                harden(scene, rng)
                found.append(pipe.sample(pipe.encode(caption(scene, rng)), negative=empty, seed=seed).video)
                scenes.append(scene)
            video = (torch.from_numpy(np.stack(found)) * std + mean).half()
            save({"video": video, "scenes": pickle.dumps(scenes)}, path)
            print(path.name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--model", type=Path, help="folder that export.py wrote (default: weights in --runs)")
    parser.add_argument("--count", type=int, default=2500, help="in hundreds, rounded up")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    sample(args.model or args.runs / "weights", args.runs, args.count, args.threads)
