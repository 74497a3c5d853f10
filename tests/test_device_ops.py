"""Single operations as devices without host memory compute them: on the GPU of SDLTX_TEST_DEVICE, or on a worker.

GPUs multiply halves, so products have a tolerance of their own there; sums and everything else are float32.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from compare import assert_close
from conftest import DEVICE
from test_ops import (
    TYPES,
    gelu,
    normed,
    ops,
    random,
    reference_attention,
    reference_conv3d,
    stored,
    write_kernel,
)

pytestmark = pytest.mark.device

EXACT = 2e-6
# Of 9 rows: one column for all, or one of three for each run.
RUNS = pytest.mark.parametrize(
    "runs, index",
    [([(0, 0, 0)], [0] * 9), ([(0, 2, 1), (2, 3, 0), (5, 4, 2)], [1, 1, 0, 0, 0, 2, 2, 2, 2])],
    ids=["one for all", "several"],
)


@pytest.fixture(autouse=True)
def device(request):
    ops.set_device(DEVICE or request.getfixturevalue("workers")[0])
    yield
    ops.set_device("cpu")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("queries", [1, 70])
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256, 512])
def test_attention(head_dim, queries, masked):
    """Heads of LTX-2 (128 and 64), Gemma 3 (256) and Gemma 4 (256 and 512); two heads of queries to one of keys."""
    keys = queries + 130
    q, k, v = (random((n, h, head_dim), seed=i) for i, (n, h) in enumerate([(queries, 4), (keys, 2), (keys, 2)]))
    mask = None
    if masked:
        mask = np.where(np.arange(keys)[None] <= np.arange(queries)[:, None] + 90, 0.0, -np.inf).astype(np.float32)
    out = ops.attention(q, k, v, mask, scale=head_dim**-0.5)[0]
    assert_close("attention", out, reference_attention(q, k, v, mask, head_dim**-0.5), 1e-5, on_device=4e-3)


@pytest.mark.by_day(2)
@pytest.mark.parametrize("keys", [6000, 67000])
@pytest.mark.parametrize("queries", [51, 70])
def test_attention_over_thousands_of_keys(queries, keys):
    """Sums of large values that are beyond what halves hold, and of small ones; GPUs round each term."""
    k, v = random((keys, 1, 64)), random((keys, 1, 64), 10.0, 1)
    for name, q, values in (
        ("uniform, large", np.zeros((queries, 1, 64), np.float32), v + 400),
        ("spread", random((queries, 1, 64), seed=2), v),
        ("spread, small", random((queries, 1, 64), seed=2), v * 1e-3),
    ):
        out = ops.attention(q, k, values.astype(np.float32), scale=0.125)[0]
        expected = reference_attention(q, k, values.astype(np.float32), None, 0.125)
        assert_close(name, out, expected, 1e-5, on_device=1e-2)


@pytest.mark.parametrize("type", TYPES)
def test_linear_of_every_type(type):
    """One row, few and many; a bias, and a scale as scaled files have it."""
    w, x = random((100, 2304), seed=1), random((71, 2304))
    data, values = stored(type, w)
    bias, scale = random(100, seed=2), random(100, seed=3)
    for rows in (1, 5, 71):
        y = ops.linear(type, data, 100, x[:rows], bias, scale)[0, 0]
        # Where ggml rounds what it multiplies to 8 bits.
        assert_close(f"{rows} rows", y, x[:rows].astype(np.float64) @ values.T * scale + bias, 1e-2)


@pytest.mark.parametrize("type", ["bf16", "q8_0", "q4_K"])
def test_linear_of_large_values(type):
    """Sums beyond what halves hold (65,504)."""
    w, x = random((64, 4096), 10.0, 1), random((70, 4096), 1e3)
    data, values = stored(type, w)
    y = ops.linear(type, data, 64, x)[0, 0]
    assert_close("products", y, x.astype(np.float64) @ values.T, 1e-2)


@pytest.mark.parametrize("time", ["replicate", "causal"])
@pytest.mark.parametrize(("kernel", "reflect"), [((3, 3, 3), False), ((3, 3, 3), True), ((1, 1, 1), False)])
@pytest.mark.parametrize("piece_bytes", [0, 1 << 14])
def test_conv3d(tmp_path, kernel, reflect, time, piece_bytes):
    """Values beyond what halves hold stay what they are."""
    x, b = random((4, 6, 10, 32), 1e5), random(16, seed=1)
    w = write_kernel(tmp_path / "c.safetensors", random((16, 32, *kernel), 0.1, 2), b, "BF16")
    path, options = str(tmp_path / "c.safetensors"), {"reflect": reflect, "piece_bytes": piece_bytes}
    y, _ = ops.conv3d(path, "c", x, 16, kernel, time=time, lowering="columns", **options)
    assert_close("conv3d", y, reference_conv3d(x, w, b, time, reflect), 5e-3, on_device=5e-3)


@RUNS
def test_modulate(runs, index):
    x, scale1, shift = random((9, 16)), random((3, 16), seed=1), random((3, 16), seed=2)
    got = ops.modulate(x, scale1, shift, runs)[0, 0]
    assert_close("modulate", got, x * scale1[index] + shift[index], EXACT, on_device=EXACT)


@RUNS
def test_gated_sum(runs, index):
    x, y, gate = random((9, 200)), random((9, 200), seed=1), random((3, 200), seed=2)
    got = ops.gated_sum(x, y, gate, runs)[0, 0]
    assert_close("gated", got, x + y * gate[index], EXACT, on_device=EXACT)


@RUNS
@pytest.mark.parametrize("width", [1, 64, 200])
def test_modulated_norm(width, runs, index):
    x, scale1, shift = random((9, width), 5), random((3, width), seed=1), random((3, width), seed=2)
    y = ops.modulated_norm(x, scale1, shift, runs, eps=1e-6)[0, 0]
    assert_close("modulated", y, normed(x) * scale1[index] + shift[index], EXACT, on_device=1e-5)


def test_modulated_norm_of_more_rows_than_an_axis_takes():
    """GPUs have 65,535 at most."""
    x, row = random((70000, 4), 5), random((2, 1, 4), seed=1)
    y = ops.modulated_norm(x, *row, [(0, 0, 0)], eps=1e-6)[0, 0]
    assert_close("modulated", y, normed(x) * row[0] + row[1], EXACT, on_device=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [5, 70000])
def test_rms_norm(rows, weighted):
    x, w = random((rows, 48), 1e4), random(48, seed=1)
    got = ops.rms_norm(x, w if weighted else None, eps=1e-6)[0, 0]
    assert_close("rms_norm", got, normed(x) * (w if weighted else 1), EXACT, on_device=1e-5)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_normed_heads(head_dim):
    tokens, heads = 11, 6
    x, w = random((tokens, 1, heads * head_dim), 30), random(heads * head_dim, seed=1)
    angles = random((tokens, heads, head_dim // 2), 3, 2)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = np.split((normed(x) * w).reshape(tokens, heads, head_dim), 2, -1)
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    got = ops.normed_heads(x, w, head_dim, cos, sin, eps=1e-6)[0]
    assert_close("rotated", got, expected, EXACT, on_device=1e-5)


def test_gelu_tanh():
    """On the CPU behind a worker it is ggml's table of halves."""
    x = np.linspace(-12, 12, 4096, dtype=np.float32).reshape(4, 1024)
    assert_close("gelu_tanh", ops.gelu_tanh(x, exact=False)[0, 0], gelu(x.astype(np.float64)), 1e-3, on_device=1e-5)


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 1, 1), (2, 2, 2), (1, 4, 4)])
def test_depth_to_space(stride):
    x = random((3, 4, 5, 6 * math.prod(stride)))
    blocks = x.reshape(3, 4, 5, *stride, 6)
    p1, p2, p3 = stride
    expected = blocks.transpose(0, 3, 1, 4, 2, 5, 6).reshape(3 * p1, 4 * p2, 5 * p3, 6)
    assert np.array_equal(ops.depth_to_space(x, stride), expected)


@pytest.mark.parametrize("before, after", [(1, 1), (3, 0)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 70_000, 2)], ids=["small", "longer than 65,535"])
def test_pad_width(shape, before, after):
    x = random(shape)
    assert np.array_equal(ops.pad_width(x, before, after), np.pad(x, ((0, 0), (0, 0), (before, after), (0, 0))))


def test_copies_have_a_speed():
    seconds = ops.copy_seconds(DEVICE or "cpu", 70 << 20)  # more than there are pieces for
    assert len(seconds) == 3 and all(0 < one < 10 for one in seconds)
