"""Stage: latents of clips, neither shifted nor scaled, with the scenes that captions are written of."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import networks
import numpy as np
import torch
from clips import make_clip
from mel import log_mel
from optim import save
from scenes import Scene

FIRST_SEED = 2 * 10**8
AUDIO_FRAMES = 52
CHUNK = 500  # clips of a file


def encode(runs: Path, count: int) -> None:
    """Writes those files of runs/latents that are not there yet."""
    video_encoder, audio_encoder = networks.video_vae()[0], networks.audio_vae()[0]
    video_encoder.load_state_dict(torch.load(runs / "video_vae.pt")["enc"])
    audio_encoder.load_state_dict(torch.load(runs / "audio_vae.pt")["enc"])
    video_encoder.to(memory_format=torch.channels_last_3d)
    audio_encoder.to(memory_format=torch.channels_last)
    for first in range(FIRST_SEED, FIRST_SEED + count, CHUNK):
        path = runs / "latents" / f"{first}.pt"
        if path.exists():
            continue
        video, audio, scenes = [], [], []
        for begin in range(first, first + CHUNK, 10):
            clips = [make_clip(seed) for seed in range(begin, begin + 10)]
            pictures = torch.from_numpy(np.stack([clip.pictures for clip in clips])).permute(0, 4, 1, 2, 3)
            x = (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last_3d)
            mel = log_mel(torch.from_numpy(np.stack([clip.wave for clip in clips])))
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                video.append(video_encoder(x).half())
                audio.append(audio_encoder(mel)[:, :, :AUDIO_FRAMES].half())
            scenes += [clip.scene for clip in clips]
        save({"video": torch.cat(video), "audio": torch.cat(audio), "scenes": pickle.dumps(scenes)}, path)
        print(path.name, flush=True)


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[Scene]]:
    """Video (clips, channels, frames, rows, columns) and audio (clips, channels, frames, bins) in float32."""
    parts = [torch.load(path) for path in sorted(folder.glob("*.pt"))]
    scenes = [scene for part in parts for scene in pickle.loads(part["scenes"])]
    return (
        torch.cat([part["video"] for part in parts]).float(),
        torch.cat([part["audio"] for part in parts]).float(),
        scenes,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    encode(args.runs, args.count)
