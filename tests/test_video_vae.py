"""The video decoder against the reference, whole and tiled."""

from __future__ import annotations

import numpy as np
import pytest
from compare import assert_close

import sdltx

pytestmark = pytest.mark.sanitize


def decode(pipe, latents, tiling=(0, 0, 0, 0)):
    """RGB (3, F, H, W) in [-1, 1] and the lengths of the pieces it came in."""
    pieces = []
    pipe._core.decode(latents, tiling=tiling, on_frames=pieces.append, raw=True)
    return np.concatenate(pieces).transpose(3, 0, 1, 2), [len(p) for p in pieces]


def channels_first(traced):
    return traced.transpose(3, 0, 1, 2)


@pytest.mark.device
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


@pytest.mark.device
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


def encode(pipe, frames, tiling=(0, 0, 0, 0)):
    """Latents of uint8 frames (F, H, W, 3)."""
    return pipe._core.encode_video(frames.astype(np.float32) / 127.5 - 1, tiling=tiling)


@pytest.mark.device
def test_encode_stage_by_stage(tiny, golden):
    g = golden("video_vae")
    with tiny.trace("vae.encoder.*") as traced:
        latent = encode(tiny, g["encode.video_u8"])
    names = {"conv_in": "conv_in", "conv_out": "conv_out"} | {f"down{i}": f"down_blocks.{i}" for i in range(9)}
    for theirs, ours in names.items():
        got = channels_first(traced[f"vae.encoder.{ours}"])
        whole = f"encode.{theirs}" in g
        name = f"encode.{theirs}" if whole else f"encode.{theirs}_sub3"
        assert_close(name, got if whole else got[..., ::3, ::3], g[name])
    assert_close("latent", latent, g["encode.latent"])


@pytest.mark.device
def test_encode_an_image(tiny, golden):
    g = golden("video_vae")
    assert_close("image", encode(tiny, g["encode.video_u8"][:1]), g["encode.image_latent"])


def test_frames_that_make_no_latent_frame_are_left_out(tiny, golden):
    video = golden("video_vae")["encode.video_u8"]
    whole = encode(tiny, video)
    np.testing.assert_array_equal(encode(tiny, np.concatenate([video, video[:3]])), whole)
    np.testing.assert_array_equal(encode(tiny, video[:8]), whole[:, :1])


def test_tiled_encode(tiny, golden):
    """The goldens' reference takes one of two tiles where they overlap; the one that we follow blends them."""
    g = golden("video_vae")
    video, (tile, overlap) = g["tiled_encode.video_u8"], g["tiled_encode.config"]
    latent = encode(tiny, video, (int(tile), int(overlap), 0, 0))
    left, right = encode(tiny, video[:, :, :128]), encode(tiny, video[:, :, 64:])
    # Cells 0-1 are the first tile's alone, 4-5 the second's.
    mixed = (left[..., 2:] * np.array([2, 1]) + right[..., :2] * np.array([1, 2])) / 3
    assert_close("tiled", latent, np.concatenate([left[..., :2], mixed, right[..., 2:]], -1))
    assert_close("single", latent[..., [0, 1, 4, 5]], g["tiled_encode.latent"][..., [0, 1, 4, 5]])
    assert_close("cut", np.concatenate([left[..., :3], right[..., 1:]], -1), g["tiled_encode.latent"])


def test_tiles_in_time_lose_their_first_latent_frame(tiny):
    video = np.random.default_rng(3).integers(0, 256, (41, 32, 32, 3), np.uint8)
    latent = encode(tiny, video, (0, 0, 32, 8))
    assert latent.shape == (8, 6, 1, 1)
    first = encode(tiny, video[:25])  # cells 0-3
    np.testing.assert_array_equal(latent[:, :3], first[:, :3])
    second = encode(tiny, video[16:])  # cells 2-5; its first has weight 0
    np.testing.assert_array_equal(latent[:, 4:], second[:, 2:])


@pytest.mark.parametrize("shape", [(1, 32, 33, 3), (1, 16, 32, 3), (0, 32, 32, 3), (1, 32, 32, 4), (32, 32, 3)])
def test_pictures_that_cannot_be_encoded(tiny, shape):
    with pytest.raises(sdltx.InvalidRequestError, match=r"multiples of 32|\(frames, height, width, 3\)"):
        tiny._core.encode_video(np.zeros(shape, np.float32))


def test_a_model_without_the_encoder(tiny_paths, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    source = sdltx._core.ModelFiles(tiny_paths[:1])
    with safe_open(tiny_paths[0], "numpy") as file:
        metadata = file.metadata()
        names = [name for name in source.names() if name.startswith("vae.decoder.") or "statistics" in name]
    save_file({name: source.tensor(name) for name in names}, tmp_path / "x.safetensors", metadata)
    pipe = sdltx.load(tmp_path / "x.safetensors")
    with pytest.raises(sdltx.ModelMismatchError, match="video encoder"):
        pipe._core.encode_video(np.zeros((1, 32, 32, 3), np.float32))
