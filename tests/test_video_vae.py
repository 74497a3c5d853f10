"""The video decoder against the reference, whole and tiled."""

from __future__ import annotations

import numpy as np
import pytest
from compare import assert_close

import sdltx


def decode(pipe, latents, tiling=(0, 0, 0, 0)):
    """RGB (3, F, H, W) in [-1, 1] and the lengths of the pieces it came in."""
    pieces = []
    pipe._core.decode(latents, tiling=tiling, on_frames=pieces.append, raw=True)
    return np.concatenate(pieces).transpose(3, 0, 1, 2), [len(p) for p in pieces]


def channels_first(traced):
    return traced.transpose(3, 0, 1, 2)


def test_decode_stage_by_stage(tiny, golden):
    g = golden("video_vae")
    with tiny.trace("vae.decoder.*") as traced:
        video, _ = decode(tiny, g["decode.latent"])
    names = {"conv_in": "conv_in"} | {f"up{i}": f"up_blocks.{i}" for i in range(9)}
    for theirs, ours in names.items():
        got = channels_first(traced[f"vae.decoder.{ours}"])
        whole = f"decode.{theirs}" in g
        name = f"decode.{theirs}" if whole else f"decode.{theirs}_sub3"
        assert_close(name, got if whole else got[..., ::3, ::3], g[name])
    assert_close("frame 8", video[:, 8], g["decode.video_frame8"])
    assert_close("video", video[..., ::3, ::3], g["decode.video_sub3"])


def test_decode_one_latent_frame(tiny, golden):
    g = golden("video_vae")
    video, _ = decode(tiny, g["decode.latent"][:, :1])
    assert_close("image", video[..., ::3, ::3], g["decode.image_sub3"])


def test_tiled_decode(tiny, golden):
    g = golden("video_vae")
    video, pieces = decode(tiny, g["tiled.latent"], tuple(int(n) for n in g["tiled.config"]))
    assert_close("tiled", video[:, g["tiled.frames"]][..., ::3, ::3], g["tiled.video_sub3"])
    assert pieces == g["tiled.chunk_frames"].tolist()


def test_tiles_larger_than_the_clip_change_nothing(tiny, golden):
    latents = golden("video_vae")["tiled.latent"]
    whole, _ = decode(tiny, latents)
    tiled, pieces = decode(tiny, latents, (768, 64, 80, 24))
    assert len(pieces) == 1
    assert np.array_equal(whole, tiled)


@pytest.mark.parametrize("tiling", [(100, 0, 0, 0), (64, 64, 0, 0), (0, 0, 20, 8), (0, 0, 16, 16), (-64, 0, 0, 0)])
def test_bad_tilings(tiny, golden, tiling):
    with pytest.raises(sdltx.InvalidRequestError, match="tile"):
        decode(tiny, golden("video_vae")["decode.latent"], tiling)


def test_wrong_latents(tiny):
    with pytest.raises(sdltx.InvalidRequestError, match=r"video latents of \(8, frames, height, width\)"):
        decode(tiny, np.zeros((4, 1, 2, 2), np.float32))


def test_not_finite_latents(tiny):
    latents = sdltx.Latents(video=np.full((8, 1, 1, 1), np.nan, np.float32), audio=None, frame_rate=24)
    with pytest.raises(sdltx.BackendError, match="not finite"):
        tiny.decode(latents)
