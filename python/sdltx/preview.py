"""A glance at a clip that is not finished: latents to small pictures without the decoder."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._files import cache_folder, replacing
from .errors import SdltxError
from .values import Latents, Tiling

if TYPE_CHECKING:
    from .pipeline import Pipeline
else:
    from ._lazy import Pipeline

_SIDE = 6  # latent cells of a sample
_EQUATIONS = 18  # for each unknown: with a sixth of them the fit is mostly chance
_MAGNIFY = 8


class Projection:
    """A linear map from latent channels to colours: what the decoder makes of a cell on average.

    Fitted by least squares to what the decoder of ``pipe`` makes of random latents, which takes as long as decoding a
    few seconds of a small clip, and kept for the next time in the user's cache folder, one for each decoder.
    """

    def __init__(self, pipe: Pipeline) -> None:
        path = cache_folder() / f"preview-{pipe.decoder_fingerprint()}.npy"
        self.matrix: NDArray[np.float32] | None = None
        """(C + 1, 3), float32: a row for each channel, and the colour of zero; colours are 0 to 1."""
        with suppress(Exception):  # a cache that is broken, in whatever way, is none
            kept = np.load(path, allow_pickle=False)
            if kept.shape == (pipe.latent_channels + 1, 3) and kept.dtype == np.float32 and np.isfinite(kept).all():
                self.matrix = kept
        if self.matrix is None:
            self.matrix = fit(pipe)
            with suppress(OSError, SdltxError):  # a cache that cannot be written is none
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as temporary, temporary.open("wb") as file:
                    np.save(file, self.matrix)

    def frames(self, latents: Latents) -> NDArray[np.uint8]:
        """Returns pictures (F', 8 H', 8 W', 3), one for each latent frame, a quarter of the clip's size."""
        assert self.matrix is not None
        cells = np.moveaxis(latents.video, 0, -1)
        colours = np.clip(cells @ self.matrix[:-1] + self.matrix[-1], 0, 1)
        small: NDArray[np.uint8] = np.rint(colours * 255).astype(np.uint8)
        return small.repeat(_MAGNIFY, axis=1).repeat(_MAGNIFY, axis=2)

    def write(self, path: str | os.PathLike[str], latents: Latents, *, overwrite: bool = False) -> None:
        """Writes them as a small animation; see :class:`sdltx.media.VideoWriter` for what ``path`` may be."""
        from .media import VideoWriter

        with VideoWriter(path, max((latents.frame_rate or 24) / 8, 0.1), overwrite=overwrite) as writer:
            writer.write_frames(self.frames(latents))


def fit(pipe: Pipeline) -> NDArray[np.float32]:
    """Returns the matrix of a :class:`Projection`."""
    channels = pipe.latent_channels
    rng = np.random.default_rng(0)
    inputs, outputs = [], []
    # One latent frame, one picture: a ninth of the work of two frames for cells that are as good.
    for _ in range(-(-_EQUATIONS * (channels + 1) // _SIDE**2)):
        latents = rng.standard_normal((channels, 1, _SIDE, _SIDE)).astype(np.float32)
        (picture,) = pipe.decode(
            Latents(latents, frame_rate=24), tiling=Tiling(size=0, frames=0), progress=False
        ).frames
        pixels = picture.astype(np.float32).reshape(_SIDE, 32, _SIDE, 32, 3).mean(axis=(1, 3)) / 255
        outputs.append(pixels.reshape(-1, 3))
        inputs.append(latents.reshape(channels, -1).T)
    x = np.concatenate(inputs)
    design = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    matrix, *_ = np.linalg.lstsq(design, np.concatenate(outputs), rcond=None)
    return np.ascontiguousarray(matrix, dtype=np.float32)
