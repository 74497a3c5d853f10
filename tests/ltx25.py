"""The kit of LTX-2.5, tiny-ltx25, and what its tests do with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import read_safetensors, write_safetensors
from conftest import DATA
from test_transformer import inputs

import sdltx

FOLDER = Path(os.environ.get("SDLTX_TINY25_DIR", DATA / "tiny-ltx25"))
VARIANT = json.loads((FOLDER / "variant.json").read_text())


def file(kind: str) -> Path:
    return FOLDER / VARIANT["files"][kind]


def rewritten(source: Path, to: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy with another header: what ``change`` makes of it."""
    header, values = read_safetensors(source)
    change(header)
    write_safetensors(to, header, values)
    return to


PARTS_OF_A_CLIP = [file(kind) for kind in ("transformer", "text_encoder", "video_vae_conv", "audio_vae")]


def read_golden(name: str) -> dict[str, np.ndarray]:
    """Arrays of a golden file by its stem."""
    return dict(np.load(FOLDER / "goldens" / f"{name}.npz"))


def velocity(pipe, golden, case, audio=True, marks=None, **more):
    """Of the golden's case, with the marks that it tells unless others are given."""
    g = golden("transformer")
    video, sound, sigma = inputs(golden, case, "pos", g.get(f"{case}.positions"))
    told = g.get(f"{case}.keyframes_mask", g["t2v.keyframes_mask"]).reshape(-1)
    video["marked"] = [bool(m) for m in (told if marks is None else marks)]
    return pipe._core.velocity(video, sound if audio else None, sigma=sigma, **more)


@pytest.fixture(scope="module")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    return read_golden


@pytest.fixture(scope="module")
def pipe() -> sdltx.Pipeline:
    """The tiny model in exact float32."""
    return sdltx.load(*PARTS_OF_A_CLIP, precision="f32")


@pytest.fixture(scope="module")
def prompts(golden):
    return {"pos": str(golden("tokens")["prompts"][0]), "empty": ""}
