"""The transformer with the release's head widths (128 and 64) at sizes that leave the small-shape paths."""

from __future__ import annotations

import numpy as np
import pytest
from compare import assert_close
from conftest import DATA
from reference_runs import wide_velocity

import sdltx

pytestmark = pytest.mark.sanitize

WIDE = DATA / "tiny-w"


@pytest.fixture(scope="module")
def wide():
    with np.load(WIDE / "goldens" / "wide.npz") as arrays:
        return dict(arrays)


def velocities(precision, wide, case):
    pipe = sdltx.load(WIDE / "tiny-ltx-2.3-dit.safetensors", precision=precision)
    with pipe.trace("transformer_blocks.0.video", "transformer_blocks.0.audio") as traced:
        velocity = wide_velocity(pipe, wide, case)
    return velocity, traced


@pytest.mark.device
@pytest.mark.parametrize("case", ["long", "square"])
@pytest.mark.parametrize("precision, tolerance", [("f32", 1e-4), ("auto", 8e-3)])
def test_velocities_at_real_head_widths(wide, case, precision, tolerance):
    """The long clip has 51 audio queries over 2,016 video keys: sums in half precision show in the sound first."""
    velocity, traced = velocities(precision, wide, case)
    block = {"video": traced["transformer_blocks.0.video"][::8], "audio": traced["transformer_blocks.0.audio"]}
    for kind in ("video", "audio"):
        assert_close(f"{case} {precision} {kind} block 0", block[kind], wide[f"{case}.{kind}_block0"], tolerance)
        assert_close(f"{case} {precision} {kind}", velocity[kind], wide[f"{case}.{kind}_velocity"], tolerance)
