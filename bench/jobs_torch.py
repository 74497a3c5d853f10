"""The jobs by PyTorch (oneDNN) in bfloat16, each as fast as it can be asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

Run = Callable[[], tuple[float, np.ndarray]]


def _timed(threads: int, compute: Callable[[], torch.Tensor], shown: Callable[[torch.Tensor], Any]) -> Run:
    torch.set_num_threads(threads)

    def run() -> tuple[float, np.ndarray]:
        with torch.inference_mode():
            start = time.perf_counter()
            y = compute()
            seconds = time.perf_counter() - start
            return seconds, np.asarray(shown(y).float())

    return run


def _random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale))


def product(threads: int, _kind: str, outputs: str, columns: str, rows: str) -> Run:
    """x w^T."""
    w = _random((int(outputs), int(columns)), 1, int(columns) ** -0.5).bfloat16()
    x = _random((int(rows), int(columns)), 2).bfloat16()
    return _timed(threads, lambda: functional.linear(x, w), lambda y: y)


def attention(threads: int, tokens: str, heads: str, width: str) -> Run:
    """softmax(q k^T / sqrt(width)) v; (tokens, heads, width)."""
    q, k, v = (
        _random((int(tokens), int(heads), int(width)), seed).bfloat16().transpose(0, 1)[None].contiguous()
        for seed in range(3)
    )
    return _timed(threads, lambda: functional.scaled_dot_product_attention(q, k, v), lambda y: y[0].transpose(0, 1))


def conv3d(threads: int, channels: str, frames: str, height: str, width: str) -> Run:
    """3x3x3, padded with zeros; (frames, height, width, channels)."""
    c = int(channels)
    x = _random((int(frames), int(height), int(width), c), 1).permute(3, 0, 1, 2)[None].bfloat16()
    w = _random((c, c, 3, 3, 3), 2, (27 * c) ** -0.5).bfloat16()
    x, w = (t.contiguous(memory_format=torch.channels_last_3d) for t in (x, w))
    return _timed(threads, lambda: functional.conv3d(x, w, padding=1), lambda y: y[0].permute(1, 2, 3, 0)[1:-1])


def _built(path: str, configurator: Any, names: Any) -> Any:
    """A part of a checkpoint as the reference (ltx-core) has it."""
    from ltx_core.loader.single_gpu_model_builder import SingleGPUModelBuilder

    builder = SingleGPUModelBuilder(model_path=path, model_class_configurator=configurator, model_sd_ops=names)
    return builder.build(device=torch.device("cpu"), dtype=torch.bfloat16).eval()


def velocity(threads: int, path: str, inputs: str, *_: str) -> Run:
    """One call of the reference's transformer."""
    from ltx_core.model import transformer
    from ltx_core.model.transformer.modality import Modality

    model = _built(path, transformer.LTXModelConfigurator, transformer.LTXV_MODEL_COMFY_RENAMING_MAP)
    given = np.load(inputs)
    sigma = torch.from_numpy(given["sigma"])

    def stream(name: str) -> Modality:
        tokens, positions, context = (
            torch.from_numpy(given[f"{name}_{part}"])[None] for part in ("tokens", "positions", "context")
        )
        steps = sigma.expand(1, tokens.shape[1])
        return Modality(tokens.bfloat16(), sigma, steps, positions, context.bfloat16())

    video, audio = stream("video"), stream("audio")
    return _timed(threads, lambda: model(video, audio, None)[0], lambda y: y[0])


def video(threads: int, path: str, frames: str) -> Run:
    """Latents of 256x256 to pictures by the reference's decoder."""
    from ltx_core.model import video_vae

    model = _built(path, video_vae.VideoDecoderConfigurator, video_vae.VAE_DECODER_COMFY_KEYS_FILTER)
    model = model.to(memory_format=torch.channels_last_3d)
    latents = _random((1, 128, int(frames), 8, 8), 1).bfloat16().contiguous(memory_format=torch.channels_last_3d)

    def shown(y: torch.Tensor) -> torch.Tensor:
        return ((y[0].float().clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 3, 0)

    return _timed(threads, lambda: model(latents), shown)
