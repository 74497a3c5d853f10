"""Several clips with one model, each part of it loaded once: python batch.py [MODEL...]

A clip that fails is told, and the others go on. Results go to files as they are ready.
"""

import sys
from pathlib import Path

import sdltx
from sdltx.jobs import VideoJob

PROMPTS = ["a red circle on a white background", "a green star spins", "a blue square bounces, with low beeps"]


class SavedJob(VideoJob):
    """Writes its clip when it is decoded, and forgets it."""

    def __init__(self, request: sdltx.Request, path: Path) -> None:
        super().__init__(request)
        self.path = path

    def on_decoded(self) -> None:
        """All of it is there."""
        super().on_decoded()
        self.video.save(self.path)
        self.video = None

    def on_finished(self) -> None:
        """It is done, or has failed."""
        print(f"{self.path}: {self.error or 'done'}")


with sdltx.load(*sys.argv[1:]) as pipe:
    jobs = [SavedJob(sdltx.Request(text, seed=1), Path(f"clip-{i}.mp4")) for i, text in enumerate(PROMPTS)]
    pipe.run(jobs)
