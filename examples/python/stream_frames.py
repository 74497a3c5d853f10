"""Frames as they are decoded, without keeping the clip in memory: python stream_frames.py [MODEL...]

Here they go into a file; anything with a method write_frames() can take them.
"""

import sys

import sdltx
from sdltx.media import VideoWriter


class Counter:
    """Tells how bright the frames are, and hands them on."""

    def __init__(self, writer: VideoWriter) -> None:
        self.writer = writer
        self.count = 0

    def write_frames(self, frames) -> None:
        """Takes (n, H, W, 3) bytes."""
        for frame in frames:
            print(f"frame {self.count}: {frame.mean():.0f} of 255")
            self.count += 1
        self.writer.write_frames(frames)


with sdltx.load(*sys.argv[1:]) as pipe:
    latents = pipe.sample(pipe.encode("a yellow star on a black background"), seed=1)
    with VideoWriter("clip.webm", latents.frame_rate) as writer:
        pipe.decode_into(Counter(writer), latents)
