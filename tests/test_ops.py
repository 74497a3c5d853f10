"""Each op builder against NumPy in double precision, on the shapes that take different paths."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize

ops = _core.ops


def random(shape, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


# --- convolution ---

LOWERINGS = pytest.mark.parametrize("lowering", ["own", "windows", "columns"])


def bf16_bits(a: np.ndarray) -> np.ndarray:
    """Rounded to nearest even."""
    bits = a.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16(a: np.ndarray) -> np.ndarray:
    return (bf16_bits(a).astype(np.uint32) << 16).view(np.float32).reshape(a.shape)


def write_kernel(path: Path, w: np.ndarray, b: np.ndarray, dtype: str) -> np.ndarray:
    """Writes c.weight as ``dtype`` and c.bias; returns the weight as stored."""
    import json
    import struct

    stored = {"F32": w, "F16": w.astype(np.float16), "BF16": bf16_bits(w)}[dtype]
    values = {"F32": w, "F16": w.astype(np.float16).astype(np.float32), "BF16": bf16(w)}[dtype]
    data, bias = stored.tobytes(), b.astype(np.float32).tobytes()
    header = {
        "c.weight": {"dtype": dtype, "shape": list(w.shape), "data_offsets": [0, len(data)]},
        "c.bias": {"dtype": "F32", "shape": list(b.shape), "data_offsets": [len(data), len(data) + len(bias)]},
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data + bias)
    return values


def reference_conv3d(x: np.ndarray, w: np.ndarray, b: np.ndarray, time: str, reflect: bool = False) -> np.ndarray:
    """x (F, H, W, C), w (out, in, kt, kh, kw) -> (F, H, W, out), float64."""
    _, _, kt, kh, kw = w.shape
    frames, height, width, _ = x.shape
    mode = "reflect" if reflect else "constant"
    x = np.pad(x.astype(np.float64), ((0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0)), mode)
    before = (kt - 1) // 2 if time == "replicate" else kt - 1
    if time == "causal_zeros":
        x = np.concatenate([np.zeros_like(x[:1])] * before + [x])
    else:
        x = np.concatenate([x[:1]] * before + [x] + [x[-1:]] * (kt - 1 - before))
    y = np.zeros((frames, height, width, w.shape[0])) + b
    for t in range(kt):
        for i in range(kh):
            for j in range(kw):
                y += x[t : t + frames, i : i + height, j : j + width] @ w[:, :, t, i, j].T.astype(np.float64)
    return y


@pytest.mark.parametrize("time", ["replicate", "causal", "causal_zeros"])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 1, 1), (3, 1, 3), (1, 1, 7), (1, 3, 3)])
@pytest.mark.parametrize("pieces", ["one", "frames", "rows", "pixels"])
@pytest.mark.parametrize("reflect", [False, True])
@LOWERINGS
def test_conv3d_is_exact_in_one_piece_and_in_many(tmp_path, time, kernel, pieces, reflect, lowering):
    shape, channels, out = (5, 6, 7), 4, 3
    x, b = random((*shape, channels)), random(out, seed=1)
    w = write_kernel(tmp_path / "c.safetensors", random((out, channels, *kernel), 0.3, 2), b, "F32")
    row_bytes = {
        "own": (7 + kernel[2] // 2 * 2) * channels * 4,
        "windows": (7 + kernel[2] // 2 * 2) * (kernel[2] * channels + out) * 4,
        "columns": 7 * (math.prod(kernel) * channels + out) * 4,
    }[lowering]
    piece_bytes = {"one": 1 << 30, "frames": row_bytes * 6 * 2, "rows": row_bytes * 4, "pixels": row_bytes // 2}[pieces]
    path, options = str(tmp_path / "c.safetensors"), {"piece_bytes": piece_bytes, "lowering": lowering}
    y, _ = ops.conv3d(path, "c", x, out, kernel, time=time, exact=True, reflect=reflect, **options)
    assert_close("conv3d", y, reference_conv3d(x, w, b, time, reflect), 1e-6)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("time", ["replicate", "causal", "causal_zeros"])
@LOWERINGS
def test_conv3d_of_few_frames(tmp_path, frames, time, lowering):
    x, b = random((frames, 3, 2, 4)), np.zeros(5, np.float32)
    w = write_kernel(tmp_path / "c.safetensors", random((5, 4, 3, 3, 3), 0.3, 2), b, "F32")
    path = str(tmp_path / "c.safetensors")
    y, _ = ops.conv3d(path, "c", x, 5, (3, 3, 3), time=time, exact=True, bias=False, lowering=lowering)
    assert_close("conv3d", y, reference_conv3d(x, w, b, time), 1e-6)


@pytest.mark.parametrize("bias", [False, True])
@LOWERINGS
def test_what_a_conv3d_is_added_to_stays(tmp_path, bias, lowering):
    x, b, residual = random((3, 4, 5, 4)), random(5, seed=1), random((3, 4, 5, 5), seed=3)
    w = write_kernel(tmp_path / "c.safetensors", random((5, 4, 3, 3, 3), 0.3, 2), b, "F32")
    path, options = str(tmp_path / "c.safetensors"), {"bias": bias, "lowering": lowering, "residual": residual}
    y, _ = ops.conv3d(path, "c", x, 5, (3, 3, 3), exact=True, **options)
    assert_close("conv3d", y, reference_conv3d(x, w, b * bias, "replicate") + 2 * residual, 1e-6)


def test_arrays_of_too_many_axes():
    with pytest.raises(sdltx.InvalidRequestError, match="more than 4 axes"):
        ops.gelu_tanh(np.zeros((1, 1, 1, 1, 2), np.float32))


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@LOWERINGS
def test_conv3d_with_stored_kernel_types(tmp_path, dtype, lowering):
    """Whatever is stored, values beyond the range of half precision (65,504) stay what they are."""
    x, b = random((3, 8, 8, 32), 1e5), random(16, seed=1)
    w = write_kernel(tmp_path / "c.safetensors", random((16, 32, 3, 3, 3), 0.1, 2), b, dtype)
    path = str(tmp_path / "c.safetensors")
    y, _ = ops.conv3d(path, "c", x, 16, (3, 3, 3), exact=True, lowering=lowering)
    assert_close(f"{dtype} exact", y, reference_conv3d(x, w, b, "replicate"), 1e-6)
    y, _ = ops.conv3d(path, "c", x, 16, (3, 3, 3), lowering=lowering)
    assert_close(dtype, y, reference_conv3d(x, w, b, "replicate"), 1e-6 if dtype == "F32" else 4e-3)


def test_conv3d_of_quantised_kernels_keeps_the_range(tmp_path):
    gguf = pytest.importorskip("gguf")
    x, b = random((2, 4, 4, 32), 1e5), np.zeros(8, np.float32)
    w = random((8, 32, 1, 1, 32), 0.1, 2)  # rows of whole blocks
    writer = gguf.GGUFWriter(tmp_path / "c.gguf", "test")
    packed = gguf.quants.quantize(w.reshape(8 * 32, 32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c.weight", packed.reshape(8, 32, -1), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c.bias", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0).reshape(w.shape)
    x = np.concatenate([x] * 8, axis=2)  # 32 wide
    y, _ = ops.conv3d(str(tmp_path / "c.gguf"), "c", x, 8, (1, 1, 32))
    full = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (16, 16), (0, 0)))
    expected = sum(full[:, :, j : j + 32] @ stored[:, :, 0, 0, j].T.astype(np.float64) for j in range(32))
    assert_close("Q8_0", y, expected, 4e-3)


@pytest.mark.parametrize("reflect", [False, True])
def test_conv3d_memory_stays_with_the_result(tmp_path, reflect):
    """Input and result, and not a second result or a gathered input: what 24 GB machines decode with."""
    x, b = random((24, 32, 32, 16)), np.zeros(64, np.float32)
    write_kernel(tmp_path / "c.safetensors", random((64, 16, 3, 3, 3), 0.1, 2), b, "BF16")
    y, memory = ops.conv3d(str(tmp_path / "c.safetensors"), "c", x, 64, (3, 3, 3), piece_bytes=1 << 20, reflect=reflect)
    assert memory < x.nbytes + y.nbytes + (4 << 20)


# --- attention ---

# Relative RMS error of products of bfloat16, where a processor has them.
FAST = 5e-3


def reference_attention(q, k, v, mask, scale):
    """q (T, H, D), k and v (S, Hkv, D) -> (T, H, D), float64."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    group = q.shape[1] // k.shape[1]
    out = np.empty(q.shape)
    for h in range(q.shape[1]):
        s = q[:, h] @ k[:, h // group].T * scale
        if mask is not None:
            s = s + mask
        p = np.exp(s - s.max(-1, keepdims=True))
        out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h // group]
    return out


@pytest.mark.parametrize("exact", [False, True], ids=["auto", "f32"])
@pytest.mark.parametrize("queries", [1, 2, 51, 63, 64, 65, 130])
def test_attention_sums_thousands_of_keys_in_float32(queries, exact):
    """Uniform scores and values around 1e3 and more: sums in half precision would drop terms or overflow."""
    keys, head_dim = 6000, 64
    q, k = np.zeros((queries, 2, head_dim), np.float32), random((keys, 2, head_dim))
    v = random((keys, 2, head_dim), 10.0, 1) + 1e3
    bound = 1e-5 if exact else FAST
    out = ops.attention(q, k, v, scale=0.125, exact=exact)[0]
    assert_close("uniform", out, reference_attention(q, k, v, None, 0.125), bound)
    q = random((queries, 2, head_dim), seed=2)
    out = ops.attention(q, k, v, scale=0.125, exact=exact)[0]
    assert_close("spread", out, reference_attention(q, k, v, None, 0.125), bound)


@pytest.mark.parametrize("head_dim", [16, 24, 25, 32, 64, 128, 256])
@pytest.mark.parametrize("queries", [3, 70])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kernel", ["own", "own, fast", "device", "plain"])
def test_attention_of_every_head_width(head_dim, queries, masked, kernel):
    keys = queries + 30
    q, k, v = (random((n, h, head_dim), seed=i) for i, (n, h) in enumerate([(queries, 4), (keys, 2), (keys, 2)]))
    mask = None
    if masked:
        mask = np.where(np.arange(keys)[None] <= np.arange(queries)[:, None] + 20, 0.0, -np.inf).astype(np.float32)
    fast = kernel == "own, fast"
    out = ops.attention(q, k, v, mask, scale=head_dim**-0.5, kernel=kernel.removesuffix(", fast"), exact=not fast)[0]
    assert_close("attention", out, reference_attention(q, k, v, mask, head_dim**-0.5), FAST if fast else 2e-6)


@pytest.mark.parametrize("exact", [False, True], ids=["auto", "f32"])
@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_what_is_no_number_stays_none(exact, where):
    """It must not turn into a likely value: who looks for it later would look in the wrong place."""
    q, k, v = (random((n, 2, 32), seed=i) for i, n in enumerate([70, 300, 300]))
    {"query": q, "key": k, "value": v}[where][5, 0, 3] = np.nan
    with np.errstate(invalid="ignore"):
        out = ops.attention(q, k, v, scale=0.2, exact=exact)[0]
    wrong = np.isnan(out[:, 0])
    if where == "query":
        assert wrong[5].all() and not wrong[np.arange(70) != 5].any()
    elif where == "key":
        assert wrong.all()
    else:
        assert wrong[:, 3].all() and not np.delete(wrong, 3, axis=1).any()
    assert np.isfinite(out[:, 1]).all()


@pytest.mark.parametrize("exact", [False, True], ids=["auto", "f32"])
@pytest.mark.parametrize(("queries", "keys"), [(97, 255), (96, 256), (5, 257), (200, 513)])
def test_attention_in_blocks(queries, keys, exact):
    """Around the sizes that it is cut into, with keys that count more the later they come; any number of threads."""
    heads, head_dim = 3, 32
    q, k, v = (random((n, heads, head_dim), seed=i) for i, n in enumerate([queries, keys, keys]))
    k *= np.linspace(0.1, 8, keys, dtype=np.float32)[:, None, None]
    mask = random((queries, keys), seed=4).astype(np.float16).astype(np.float32)
    mask[0] = -np.inf  # nothing to look at
    mask[1, : keys - 1] = -np.inf  # nothing in the first blocks
    out = ops.attention(q, k, v, mask, scale=0.2, exact=exact, threads=1)[0]
    assert not out[0].any()
    assert_close("blocks", out[1:], reference_attention(q[1:], k, v, mask[1:], 0.2), 2e-6 if exact else 2 * FAST)
    for threads in (2, 3, 8):
        assert np.array_equal(ops.attention(q, k, v, mask, scale=0.2, exact=exact, threads=threads)[0], out)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("patience", [0, 2_000_000])
def test_attention_where_some_tokens_count_less(exact, patience):
    """Rows that queries share, and one value of each query for the first keys; also for some queries at a time."""
    tokens, clip, head_dim = 333, 190, 64
    q, k, v = (random((tokens, 4, head_dim), seed=i) for i in range(3))
    rng = np.random.default_rng(4)
    rows = np.log(rng.uniform(0, 1, (3, tokens))).astype(np.float32)
    rows[1, 200:] = -np.inf
    rows[2, :clip] = 0
    which = rng.integers(0, 3, tokens)
    own = np.log(rng.uniform(0, 1, tokens)).astype(np.float32)
    own[5], own[7] = -np.inf, 0
    mask = rows[which].copy()
    mask[:, :clip] += own[:, None]
    out = ops.biased_attention(
        q, k, v, rows=rows, which=which.tolist(), own=own, count=clip, scale=0.2, exact=exact, patience=patience
    )[0]
    assert_close("biased", out, reference_attention(q, k, v, mask, 0.2), 2e-6 if exact else 2 * FAST)
    assert np.array_equal(
        ops.biased_attention(
            q, k, v, rows=rows, which=which.tolist(), own=own, count=clip, scale=0.2, exact=exact, threads=1
        )[0],
        out,
    )


# --- products with weights ---

TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"]
TYPES += ["iq4_nl", "iq4_xs", "mxfp4"]


def stored(type, rows):
    """Bytes of rows in this type, and what they stand for."""
    import gguf

    data = ops.quantise(rows, type)
    kind = gguf.GGMLQuantizationType[type.upper()]
    size = kind if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16) else None
    values = data.view({"f32": np.float32, "f16": np.float16}[type]) if size is not None else data
    if type == "bf16":
        values = (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif size is None:
        values = gguf.quants.dequantize(data.reshape(len(rows), -1), kind)
    return data, values.astype(np.float64).reshape(rows.shape)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.by_day(17)
@pytest.mark.parametrize("exact", [False, True], ids=["auto", "f32"])
@pytest.mark.parametrize("type", TYPES)
def test_linear_of_every_type(type, exact):
    """Rows and outputs that fill no tile, more than one chunk of the sums, and few rows, which ggml multiplies."""
    w, x = random((100, 2304), seed=1), random((71, 2304))
    data, values = stored(type, w)
    bias, scale = random(100, seed=2), random(100, seed=3)
    for rows in (71, 32, 5):
        for one in (False, True):
            y = ops.linear(type, data, 100, x[:rows], bias, scale[:1] if one else scale, exact=exact)[0, 0]
            expected = x[:rows].astype(np.float64) @ values.T * (scale[0] if one else scale) + bias
            ours = 2e-6 if exact or type == "f32" else FAST
            assert_close(f"{rows} rows", y, expected, ours if rows >= 32 else 2e-2)


@pytest.mark.parametrize("type", ["f32", "bf16", "q8_0"])
@pytest.mark.parametrize(("outputs", "columns"), [(1, 32), (63, 64), (64, 96), (65, 2048), (130, 4096), (33, 4128)])
def test_linear_of_every_size(type, outputs, columns):
    """Around the sizes that it is cut into; the same in pieces and on any number of threads."""
    w, x = random((outputs, columns), seed=1), random((200, columns))
    data, values = stored(type, w)
    for rows in (32, 35, 36, 37, 200):
        y = ops.linear(type, data, outputs, x[:rows], activation="gelu_tanh", threads=1)[0, 0]
        expected = gelu(x[:rows].astype(np.float64) @ values.T)
        assert_close(f"{rows} rows", y, expected, 2e-6 if type == "f32" else FAST)
        for threads, patience in ((2, 1), (3, 0), (8, 1)):
            again = ops.linear(
                type, data, outputs, x[:rows], activation="gelu_tanh", threads=threads, patience=patience
            )
            assert np.array_equal(again[0, 0], y)


def test_linear_of_odd_rows():
    """Types without blocks take any number of columns."""
    for columns in (1, 3, 7, 2049):
        w, x = random((5, columns), seed=1), random((40, columns))
        for type in ("f32", "f16", "bf16"):
            data, values = stored(type, w)
            y = ops.linear(type, data, 5, x)[0, 0]
            assert_close(f"{columns} {type}", y, x.astype(np.float64) @ values.T, 2e-6 if type == "f32" else FAST)


# --- the rest ---


@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 1, 1), (2, 2, 2), (1, 4, 4)])
def test_depth_to_space(stride):
    p1, p2, p3 = stride
    x = random((3, 4, 5, 6 * p1 * p2 * p3))
    blocks = x.reshape(3, 4, 5, p1, p2, p3, 6)
    expected = blocks.transpose(0, 3, 1, 4, 2, 5, 6).reshape(3 * p1, 4 * p2, 5 * p3, 6)
    assert np.array_equal(ops.depth_to_space(x, stride), expected)


@pytest.mark.parametrize("before, after", [(0, 0), (1, 1), (3, 0), (0, 4)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 70_000, 2)], ids=["small", "longer than 65,535"])
def test_pad_width(shape, before, after):
    x = random(shape)
    assert np.array_equal(ops.pad_width(x, before, after), np.pad(x, ((0, 0), (0, 0), (before, after), (0, 0))))


# Of 9 rows: one column for all, or one of three for each run.
RUNS = pytest.mark.parametrize(
    "runs, index",
    [([(0, 0, 0)], [0] * 9), ([(0, 2, 1), (2, 3, 0), (5, 4, 2)], [1, 1, 0, 0, 0, 2, 2, 2, 2])],
    ids=["one for all", "several"],
)


@RUNS
def test_modulate(runs, index):
    x, scale1, shift = random((9, 16)), random((3, 16), seed=1), random((3, 16), seed=2)
    got = ops.modulate(x, scale1, shift, runs)[0, 0]
    assert_close("modulate", got, x * scale1[index] + shift[index], 1e-6)


@RUNS
def test_gated_sum(runs, index):
    x, y, gate = random((9, 200)), random((9, 200), seed=1), random((3, 200), seed=2)
    for threads in (1, 2, 5):
        got = ops.gated_sum(x, y, gate, runs, threads=threads)[0, 0]
        assert_close("gated", got, x + y * gate[index], 1e-6)


def normed(x):
    x = x.astype(np.float64)
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("shared", [False, True], ids=["angles of each head", "of all"])
@pytest.mark.parametrize("together", [1, 3], ids=["heads apart", "together"])
@pytest.mark.parametrize("head_dim", [2, 24, 128])
def test_normed_heads(together, shared, head_dim):
    """Norm and rotation in one pass, of single heads as in Gemma and of all of them together."""
    tokens, heads = 11, 6
    x, w = random((tokens, heads // together, together * head_dim), 30), random(together * head_dim, seed=1)
    angles = random((tokens, 1 if shared else heads, head_dim // 2), 3, 2)
    cos, sin = np.cos(angles), np.sin(angles)
    plain = (normed(x) * w).reshape(tokens, heads, head_dim)
    a, b = np.split(plain, 2, -1)
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    for threads in (1, 2, 5):
        y = ops.normed_heads(x, w, head_dim, cos, sin, eps=1e-6, threads=threads)[0]
        assert_close("rotated", y, expected, 1e-6)
    assert_close("plain", ops.normed_heads(x, w, head_dim, eps=1e-6)[0], plain, 1e-6)


@RUNS
@pytest.mark.parametrize("width", [1, 15, 64, 200])
def test_modulated_norm(width, runs, index):
    x, scale1, shift = random((9, width), 5), random((3, width), seed=1), random((3, width), seed=2)
    for threads in (1, 2, 5):
        y = ops.modulated_norm(x, scale1, shift, runs, eps=1e-6, threads=threads)[0, 0]
        assert_close("modulated", y, normed(x) * scale1[index] + shift[index], 1e-6)


def test_modulated_norm_of_more_rows_than_an_axis_takes():
    """GPUs have 65,535 at most."""
    x, row = random((70000, 4), 5), random((2, 1, 4), seed=1)
    y = ops.modulated_norm(x, *row, [(0, 0, 0)], eps=1e-6)[0, 0]
    assert_close("modulated", y, normed(x) * row[0] + row[1], 1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_rms_norm(weighted):
    x, w = random((5, 48), 1e4), random(48, seed=1)
    expected = x.astype(np.float64) / np.sqrt(np.mean(x.astype(np.float64) ** 2, -1, keepdims=True) + 1e-6)
    expected = expected * w if weighted else expected
    assert_close("rms_norm", ops.rms_norm(x, w if weighted else None, eps=1e-6)[0, 0], expected, 1e-6)


def test_gelu_tanh():
    x = np.linspace(-12, 12, 4096, dtype=np.float32).reshape(4, 1024)
    x64 = x.astype(np.float64)
    expected = 0.5 * x64 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x64 + 0.044715 * x64**3)))
    for exact in (True, False):
        assert_close("gelu_tanh", ops.gelu_tanh(x, exact=exact)[0, 0], expected, 1e-6)


def test_rotate_half():
    x, angles = random((6, 3, 8)), random((6, 3, 4), seed=1)
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., :4], x[..., 4:]
    expected = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    assert_close("rotate_half", ops.rotate_half(x, cos, sin)[0], expected, 1e-6)
