"""The jobs by sdltx. Those with whole models run with older versions of it too."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

import sdltx
from sdltx import _core

with suppress(ImportError):  # older versions have single operations in the core itself
    import sdltx._core_tests

Run = Callable[[], tuple[float, np.ndarray]]


def _random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale)


def _of_core(compute: Callable[[], np.ndarray]) -> Run:
    """Only what the core computes, without carrying values to it and back; the second run has its memory."""

    def run() -> tuple[float, np.ndarray]:
        _core.ops.set_runs(2)
        y = compute()
        return _core.ops.seconds_of_runs()[-1], y

    return run


def product(threads: int, kind: str, outputs: str, columns: str, rows: str, own: str = "own") -> Run:
    """x w^T with w of this type."""
    n, k = int(outputs), int(columns)
    w = _core.ops.quantise(_random((n, k), 1, k**-0.5), kind)
    x = _random((int(rows), k), 2)
    return _of_core(lambda: _core.ops.linear(kind, w, n, x, threads=threads, own=own == "own")[0, 0])


def attention(threads: int, tokens: str, heads: str, width: str, kernel: str = "own") -> Run:
    """softmax(q k^T / sqrt(width)) v; (tokens, heads, width)."""
    q, k, v = (_random((int(tokens), int(heads), int(width)), seed) for seed in range(3))
    scale = int(width) ** -0.5
    return _of_core(lambda: _core.ops.attention(q, k, v, scale=scale, kernel=kernel, threads=threads)[0])


def conv3d(threads: int, channels: str, frames: str, height: str, width: str, lowering: str = "own") -> Run:
    """3x3x3 of bfloat16, padded with zeros in space; (frames, height, width, channels) without the end frames."""
    from weights import write_kernel

    c = int(channels)
    x = _random((int(frames), int(height), int(width), c), 1)
    path = write_kernel(tempfile.mkdtemp(), _random((c, c, 3, 3, 3), 2, (27 * c) ** -0.5))
    return _of_core(
        lambda: _core.ops.conv3d(path, "c", x, c, (3, 3, 3), bias=False, lowering=lowering, threads=threads)[0][1:-1]
    )


def _timed(compute: Callable[[], np.ndarray]) -> Run:
    def run() -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        y = compute()
        return time.perf_counter() - start, y

    return run


def velocity(threads: int, path: str, inputs: str, model: str = "") -> Run:
    """One call of the transformer. model: the file, if it is not the one that the peer takes."""
    pipe = sdltx.load(model or path, threads=threads)
    given = np.load(inputs)

    def stream(name: str) -> dict[str, np.ndarray]:
        parts = {part: given[f"{name}_{part}"] for part in ("tokens", "positions", "context")}
        return {**parts, "timesteps": np.full(len(parts["tokens"]), given["sigma"][0], np.float32)}

    video, audio = stream("video"), stream("audio")
    return _timed(lambda: pipe._core.velocity(video, audio, sigma=float(given["sigma"][0]))[0])


def denoise(threads: int, path: str) -> Run:
    """Two steps of a clip of 720 + 34 tokens."""
    pipe = sdltx.load(path, threads=threads)
    context = sdltx.Context(_random((1024, 4096), 1, 0.1), _random((1024, 2048), 2, 0.1))
    size = {"width": 384, "height": 384, "num_frames": 33, "frame_rate": 24, "seed": 1, "sigmas": [1.0, 0.5, 0.0]}
    noise = sdltx.Latents(_random((128, 5, 12, 12), 3), _random((8, 34, 16), 4))
    options: dict[str, Any] = {}
    with suppress(TypeError):
        pipe.check(**size, preset="distilled")
        options["preset"] = "distilled"
    return _timed(lambda: pipe.sample(context, **size, **options, noise=noise).video)


def video(threads: int, path: str, frames: str) -> Run:
    """Latents of 256x256 to pictures."""
    pipe = sdltx.load(path, threads=threads)
    latents = sdltx.Latents(_random((128, int(frames), 8, 8), 1), None, 24)
    return _timed(lambda: pipe.decode(latents).frames.astype(np.float32))


def sound(threads: int, path: str, frames: str) -> Run:
    """Latents to sound."""
    pipe = sdltx.load(path, threads=threads)
    latents = sdltx.Latents(_random((128, 1, 2, 2), 1), _random((8, int(frames), 16), 2), 24)
    return _timed(lambda: pipe.decode_audio(latents)[0])


def gemma(threads: int, path: str, tokens: str, text: str, other: str) -> Run:
    """Hidden states of Gemma, of which the last is after the norm. `other`: any part of LTX-2, as a model needs one."""
    pipe = sdltx.load(path, other, threads=threads)
    assert len(pipe.tokenize(text)) == int(tokens)
    return _timed(lambda: pipe._core.hidden_states(text)[-1])


def demo(threads: int, folder: str) -> Run:
    """A clip of the built-in model from its prompt."""
    parts = sorted(path for path in Path(folder).iterdir() if path.suffix in (".gguf", ".safetensors"))
    pipe = sdltx.load(*parts, Path(folder) / "gemma", threads=threads)
    size = {"width": 128, "height": 128, "num_frames": 25, "frame_rate": 12, "num_inference_steps": 20}
    if "negative_prompt" in pipe.info:  # older versions know no guidance
        size |= {"guidance_scale": 1, "audio_guidance_scale": 1}
    noise = sdltx.Latents(_random((32, 4, 4, 4), 3), _random((2, 52, 16), 4))
    prompt = "a red triangle moves right over a navy background, with high beeps"
    return _timed(lambda: pipe.generate(prompt, **size, noise=noise).frames.astype(np.float32))
