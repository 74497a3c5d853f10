"""A run stops within about a second whatever its size: operations are cut into pieces, which change nothing."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

import sdltx
from sdltx._core import ops


class Stop(Exception):
    pass


def stop_after(seconds, run):
    """Raises Stop in `run` as Ctrl-C raises KeyboardInterrupt; returns how many seconds it took to come out."""

    def on_alarm(number, frame):
        raise Stop

    before = signal.signal(signal.SIGALRM, on_alarm)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(Stop):
            run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return time.monotonic() - start - seconds


# One attention over the 67,320 tokens of this clip takes half a minute on two cores.
FULL_HD = {"width": 1920, "height": 1088, "num_frames": 257, "num_inference_steps": 1, "seed": 1}


@pytest.mark.by_day(0)
def test_denoising_at_a_large_size_stops_at_once():
    with sdltx.load() as pipe:
        context = pipe.encode("a red circle")
        assert stop_after(4, lambda: pipe.sample(context, **FULL_HD)) < 3


@pytest.mark.by_day(1)
def test_denoising_on_a_worker_stops_at_once_and_leaves_it_usable(workers):
    with sdltx.load(device=workers[0]) as pipe:
        context = pipe.encode("a red circle")
        assert stop_after(6, lambda: pipe.sample(context, **FULL_HD)) < 4
        again = pipe.sample(context, width=64, height=64, num_frames=9, num_inference_steps=1, seed=1)
        assert np.isfinite(again.video).all()


@pytest.mark.by_day(0)
def test_decoding_in_one_large_tile_stops_at_once():
    latents = sdltx.Latents(np.zeros((32, 33, 34, 60), np.float32), None, 24.0)
    with sdltx.load() as pipe:
        pipe.decode(sdltx.Latents(np.zeros((32, 1, 1, 1), np.float32), None, 24.0))  # weights are there
        tiling = sdltx.Tiling(size=0, frames=32, frame_overlap=8)
        assert stop_after(4, lambda: pipe.decode(latents, tiling=tiling)) < 3


@pytest.mark.by_day(1)
@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_pieces_change_no_bit(tiny_paths, precision):
    prompt, size = "a red ball bounces " * 40, {"width": 384, "height": 256, "num_frames": 25}
    results = []
    for patience in (None, 1, 1_000_000):
        with sdltx.load(*tiny_paths, precision=precision) as pipe:
            if patience:
                pipe._core.set_patience(patience)
            context = pipe.encode(prompt)
            latents = pipe.sample(context, **size, num_inference_steps=1, seed=3)
            if patience:
                pipe._core.set_patience(10_000_000)
            clip = pipe.decode(latents)
            arrays = [context.video, context.audio, latents.video, latents.audio, clip.frames, clip.audio]
            results.append([a.tobytes() for a in arrays])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("kernel", ["own", "device", "plain"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("queries", [2, 64, 65, 127, 128, 129, 191, 192, 193, 400])
def test_attention_in_pieces_of_queries_and_heads(queries, heads, masked, kernel):
    rng = np.random.default_rng(0)
    keys, width = 150, 32
    q = rng.standard_normal((queries, heads[0], width), np.float32)
    k, v = (rng.standard_normal((keys, heads[1], width), np.float32) for _ in range(2))
    mask = np.where(rng.random((queries, keys)) < 0.3, -np.inf, 0).astype(np.float32) if masked else None
    whole = ops.attention(q, k, v, mask, scale=0.2, kernel=kernel)
    for patience in (1, 64 * 2 * width * keys * 2, 128 * 2 * width * keys * 4):
        assert np.array_equal(ops.attention(q, k, v, mask, scale=0.2, kernel=kernel, patience=patience), whole)
