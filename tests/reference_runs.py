"""Runs of the parity kit's models from the reference's own inputs: for tests, and for tools/device_check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import sdltx
from sdltx import _core

CONTEXT_ROWS = 160
Arrays = Mapping[str, np.ndarray[Any, Any]]


def contexts(text: Arrays, tag: str = "pos") -> dict[str, np.ndarray[Any, Any]]:
    """The rows of both streams' contexts that the reference's runs look at, (160, D) each."""
    rows = {int(r): i for i, r in enumerate(text[f"{tag}.context_rows"])}
    pick = [rows[i] for i in range(CONTEXT_ROWS)]
    return {kind: text[f"{tag}.{kind}_context"][pick] for kind in ("video", "audio")}


def distilled_sampler(pipe: sdltx.Pipeline, text: Arrays, transformer: Arrays, trajectory: Arrays) -> _core.Sampler:
    """The 8 steps of tiny-a, from the reference's noise and contexts."""
    frames, height, width = (int(n) for n in transformer["pixel_shape"])
    context = contexts(text)
    video, audio = trajectory["distilled.video_noise"], trajectory["distilled.audio_noise"]
    bins = 16
    return pipe._core.sampler(
        context["video"],
        context["audio"],
        _core.ClipOptions(
            width=width,
            height=height,
            num_frames=frames,
            frame_rate=float(transformer["fps"]),
            sigmas=trajectory["distilled.sigmas"].tolist(),
            preset="distilled",
        ),
        video_noise=video.T.reshape(-1, (frames - 1) // 8 + 1, height // 32, width // 32),
        audio_noise=audio.reshape(len(audio), -1, bins).transpose(1, 0, 2),
    )


def wide_velocity(pipe: sdltx.Pipeline, wide: Arrays, case: str) -> dict[str, np.ndarray[Any, Any]]:
    """Of both streams of tiny-w, by kind: (T, C)."""
    frames, height, width = (int(n) for n in wide[f"{case}.pixel_shape"])
    sigma = np.float32(wide[f"{case}.sigma"])
    audio_tokens = wide[f"{case}.audio_tokens"]
    positions = {
        "video": _core.video_positions((frames - 1) // 8 + 1, height // 32, width // 32, float(wide["fps"])),
        "audio": _core.audio_positions(len(audio_tokens)),
    }
    streams = [
        {
            "tokens": wide[f"{case}.{kind}_tokens"],
            "timesteps": np.full(len(wide[f"{case}.{kind}_tokens"]), sigma),
            "positions": positions[kind],
            "context": wide[f"{case}.{kind}_context"],
        }
        for kind in ("video", "audio")
    ]
    return dict(zip(("video", "audio"), pipe._core.velocity(*streams, sigma=float(sigma)), strict=True))
