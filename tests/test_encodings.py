"""Safetensors in int8, NVFP4 and MXFP8: read exactly, computed without loss where ggml can."""

from __future__ import annotations

import encoded
import numpy as np
import pytest
import wide_rows
from commands import read_safetensors, write_safetensors
from test_convert import cosine, velocities

import sdltx
from sdltx import _core

DIT = "model.diffusion_model."
KINDS = {
    "int8": ("int8_tensorwise", {}),
    "int8 of one scale": ("int8_tensorwise", {"by_row": False}),
    "rotated": ("int8_tensorwise", {"rotation": 256}),
    "nvfp4": ("nvfp4", {}),
    "mxfp8": ("mxfp8", {}),
    "fp8": ("float8_e4m3fn", {}),
    "fp8 without a scale": ("float8_e4m3fn", {"scaled": False}),
    "e5m2": ("float8_e5m2", {}),
}


def is_large(name, shape):
    return ".transformer_blocks." in name and len(shape) == 2 and "gate" not in name and "table" not in name


def write_one(path, weight, kind, **options):
    """A file with one weight, and the values that it stands for."""
    whole = write_safetensors(
        path.with_suffix(".plain"),
        {
            "__metadata__": {},
            "x.weight": {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [0, weight.nbytes]},
        },
        weight.tobytes(),
    )
    return encoded.write(path, whole, kind, lambda name, shape: True, **options)["x.weight"]


@pytest.mark.parametrize("shape", [(1, 64), (200, 192), (128, 80), (300, 1024)])
def test_nvfp4_values(tmp_path, shape):
    """Also rows and blocks that do not fill their tiles."""
    weight = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    weight *= np.exp(np.random.default_rng(2).standard_normal((shape[0], 1))).astype(np.float32)
    meant = write_one(tmp_path / "x.safetensors", weight, "nvfp4")
    got = _core.ModelFiles([str(tmp_path / "x.safetensors")]).tensor("x.weight")
    assert got.shape == shape
    assert np.allclose(got, meant, rtol=3e-7, atol=0)
    assert np.linalg.norm(got - weight) / np.linalg.norm(weight) < 0.12


def test_every_scale_of_nvfp4(tmp_path):
    """All 127 finite positive scales with all 16 codes, read and as ggml computes them."""
    scales = np.arange(128, dtype=np.uint8).reshape(2, 64)
    scales[1, 63] = 0  # not a number
    codes = np.tile(np.arange(16, dtype=np.uint8), 128).reshape(2, 1024)
    tensors = {
        "weight": ("U8", codes[:, ::2] << 4 | codes[:, 1::2]),
        "weight_scale": ("F8_E4M3", encoded.tiled(scales)),
        "weight_scale_2": ("F32", np.float32(0.5)),
    }
    header, blob = {}, b""
    for name, (dtype, array) in tensors.items():
        raw = np.asarray(array).tobytes()
        shape = list(np.asarray(array).shape)
        header[f"x.{name}"] = {"dtype": dtype, "shape": shape, "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    path = write_safetensors(tmp_path / "x.safetensors", header, blob)
    expected = encoded.E2M1[codes] * np.repeat(encoded.e4m3()[scales], 16, axis=1) / 2
    assert np.array_equal(_core.ModelFiles([path]).tensor("x.weight"), expected)


@pytest.mark.parametrize("rotation", [0, 4, 16, 64, 256])
@pytest.mark.parametrize("by_row", [True, False])
def test_int8_values(tmp_path, rotation, by_row):
    weight = np.random.default_rng(1).standard_normal((40, 512), dtype=np.float32)
    meant = write_one(tmp_path / "x.safetensors", weight, "int8_tensorwise", rotation=rotation, by_row=by_row)
    got = _core.ModelFiles([str(tmp_path / "x.safetensors")]).tensor("x.weight")
    assert np.allclose(got, meant, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(got - weight) / np.linalg.norm(weight) < 0.02


def test_mxfp8_values(tmp_path):
    weight = np.random.default_rng(1).standard_normal((200, 96), dtype=np.float32)
    meant = write_one(tmp_path / "x.safetensors", weight, "mxfp8")
    got = _core.ModelFiles([str(tmp_path / "x.safetensors")]).tensor("x.weight")
    assert np.array_equal(got, meant.astype(np.float32))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return wide_rows.write(tmp_path_factory.mktemp("wide") / "wide.safetensors")


@pytest.mark.by_day(2)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mark", ["tensor", "header"])
def test_checkpoints(tmp_path, wide, name, mark, caplog):
    """In float32 they compute what their values compute, as stored next to the same; memory is that of the type."""
    from safetensors.numpy import save_file

    kind, options = KINDS[name]
    caplog.set_level("INFO", "sdltx")
    path = tmp_path / "q.safetensors"
    meant = encoded.write(path, wide, kind, is_large, mark, **options)
    assert len(meant) == wide_rows.BLOCKS * 28
    plain = _core.ModelFiles([wide])
    arrays = {n: meant.get(n, plain.tensor(n)).astype(np.float32) for n in plain.names()}
    save_file(arrays, tmp_path / "f32.safetensors", {"config": plain.metadata("config"), "model_version": "2.3.0"})
    exact, got = velocities(tmp_path / "f32.safetensors", "f32"), velocities(path, "f32")
    for a, b in zip(exact, got, strict=True):
        assert np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-5
    stored = velocities(path)
    errors = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(exact, stored, strict=True)]
    kept = min(map(cosine, velocities(wide, "f32"), stored))
    print(f"{name}: {max(errors):.1e}, cosine with the unquantised {kept:.5f}")
    assert max(errors) < 1e-2
    report = sdltx.inspect(path)
    assert not report.problems
    assert not report.unexpected
    assert "not used" not in caplog.text
    words = {"int8_tensorwise": "int8", "nvfp4": "NVFP4", "mxfp8": "MXFP8"}.get(kind, "FP8")
    assert f"{words} weights" in caplog.text


@pytest.mark.by_day(1)
@pytest.mark.parametrize(
    ("kind", "options"), [("float8_e4m3fn", {"scaled": False}), ("float8_e5m2", {"scaled": False}), ("mxfp8", {})]
)
def test_fp8_is_computed_where_it_lies(tmp_path, wide, kind, options):
    """With the bits that the same values have as BF16, and in no memory of its own."""
    meant = encoded.write(tmp_path / "fp8.safetensors", wide, kind, is_large, "header", **options)
    header, blob = read_safetensors(wide)
    out, parts, at = {"__metadata__": header.pop("__metadata__")}, [], 0
    for name, entry in header.items():
        raw, dtype = blob[slice(*entry["data_offsets"])], entry["dtype"]
        if name in meant:
            raw, dtype = (meant[name].astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes(), "BF16"
        out[name] = {"dtype": dtype, "shape": entry["shape"], "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    write_safetensors(tmp_path / "bf16.safetensors", out, b"".join(parts))
    rng = np.random.default_rng(5)
    context = sdltx.Context(rng.standard_normal((64, 512), np.float32), rng.standard_normal((64, 256), np.float32))
    size = {"width": 256, "height": 192, "num_frames": 33, "seed": 1, "sigmas": [1, 0.5, 0], "preset": "distilled"}
    found = []
    for name in ("fp8", "bf16"):
        with sdltx.load(tmp_path / f"{name}.safetensors") as pipe:
            latents = pipe.sample(context, **size)
            assert latents.audio.shape[1] >= 32  # or ggml would multiply those of BF16
            found.append((latents, *pipe.memory()))
    (fp8, stored), (bf16, _) = found
    assert np.array_equal(fp8.video, bf16.video)
    assert np.array_equal(fp8.audio, bf16.audio)
    total = sum(values.size for values in meant.values())
    assert stored["mapped"] >= total
    assert stored["weights"] < total / 10


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 100])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("kind", "width"), [("e4m3", 128), ("e4m3", 4099), ("e5m2", 128), ("e5m2", 77)])
def test_products_of_fp8(rows, exact, kind, width):
    """All codes, in rows of every length; a code that is no number makes none."""
    codes = np.resize(np.arange(256, dtype=np.uint8), (24, width))
    x = rounded(np.random.default_rng(0).standard_normal((rows, width), np.float32))
    table = getattr(encoded, kind)()
    finite = np.where(np.isfinite(table)[codes], codes, 0).astype(np.uint8)
    got = _core.ops.linear(kind, finite, 24, x, threads=2, exact=exact)[0, 0]
    expected = x.astype(np.float64) @ table[finite].astype(np.float64).T
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) < 1e-5
    for code in np.flatnonzero(~np.isfinite(table)).astype(np.uint8):
        one = finite.copy()
        one[3, width - 1] = code
        got = _core.ops.linear(kind, one, 24, x, threads=2, exact=exact)[0, 0]
        assert np.isfinite(np.delete(got, 3, axis=1)).all()
        # An infinite one keeps its sign.
        with np.errstate(invalid="ignore"):
            assert np.array_equal(got[:, 3], table[code] * x[:, width - 1], equal_nan=True)


def rounded(x):
    """To what bfloat16 has, so that no kernel rounds it."""
    return (x.view(np.uint32) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("exact", [False, True])
def test_products_of_mxfp8(rows, exact):
    """Every power of two, each with all codes; a power that is no number makes none, and only where it stands."""
    outputs, width = 200, 4096
    codes = np.resize(np.arange(256, dtype=np.uint8), (outputs, width))
    table = encoded.e4m3()
    codes = np.where(np.isfinite(table)[codes], codes, 0).astype(np.uint8)
    values = table[codes].astype(np.float64).reshape(outputs, -1, 32)
    x = rounded(np.random.default_rng(0).standard_normal((rows, width), np.float32))
    for powers in (np.full(128, 127), np.arange(128), np.arange(100, 228), np.arange(128, 256)):
        scales = np.stack([np.roll(powers, row) for row in range(outputs)]).astype(np.uint8)
        meant = np.where(scales == 255, np.nan, 2.0 ** (scales.astype(int) - 127))
        weights = (values * meant[:, :, None]).reshape(outputs, width)
        with np.errstate(over="ignore", invalid="ignore"):
            # Products of a weight that float32 has not are infinite, so those sums are compared by what they are not.
            expected = x.astype(np.float64) @ weights.astype(np.float32).astype(np.float64).T
            got = _core.ops.linear("e4m3", codes, outputs, x, threads=2, exact=exact, powers=encoded.tiled(scales))[
                0, 0
            ]
            usable = np.abs(expected) < 1e38
        assert np.isfinite(expected).all() == (powers.max() < 247)
        size = np.abs(x).astype(np.float64) @ np.abs(np.nan_to_num(weights, posinf=0, neginf=0)).T
        error = np.abs(got - expected)[usable] / size[usable]
        if usable.any():
            assert error.max() < 1e-5
        assert not np.isfinite(got[~np.isfinite(expected)]).any()


@pytest.mark.by_day(1)
@pytest.mark.parametrize(("name", "bits"), [("int8", 8.5), ("nvfp4", 4.5), ("rotated", 16)])
def test_memory_is_that_of_the_type(tmp_path, wide, name, bits):
    kind, options = KINDS[name]
    meant = encoded.write(tmp_path / "q.safetensors", wide, kind, is_large, "header", **options)
    with sdltx.load(tmp_path / "q.safetensors") as pipe:
        pipe._core.velocity(
            {
                "tokens": np.zeros((4, 8), np.float32),
                "timesteps": np.zeros(4, np.float32),
                "positions": _core.video_positions(1, 2, 2, 24.0),
                "context": np.zeros((2, 512), np.float32),
            },
            None,
            sigma=0.5,
        )
        (memory,) = pipe.memory()
    # Without sound nothing of it is brought.
    seen = (values.size for name, values in meant.items() if "audio" not in name and "av_ca" not in name)
    expected = sum(seen) * bits / 8
    assert expected <= memory["weights"] < 1.25 * expected + 1_000_000


@pytest.mark.by_day(0)
def test_they_convert(tmp_path, wide):
    kind, options = KINDS["rotated"]
    meant = encoded.write(tmp_path / "q.safetensors", wide, kind, is_large, **options)
    for target in ("x.gguf", "x.safetensors"):
        (path,) = sdltx.convert(tmp_path / "q.safetensors", output=tmp_path / target, type="f32")
        files = _core.ModelFiles([str(path)])
        for name, values in meant.items():
            assert np.allclose(files.tensor(name), values, rtol=1e-5, atol=1e-7)
    (path,) = sdltx.convert(tmp_path / "q.safetensors", output=tmp_path / "k.gguf", type="keep")
    types = {t.name: t.type for t in sdltx.inspect(path).tensors}
    assert {kind for name, kind in types.items() if "registers" not in name} == {"BF16"}


def change(path, edit):
    header, blob = read_safetensors(path)
    edit(header)
    return write_safetensors(path, header, blob)


def one_layer(name, shape):
    """Which is quicker to encode."""
    return name == DIT + "transformer_blocks.1.attn1.to_q.weight"


@pytest.mark.parametrize("missing", ["weight_scale", "weight_scale_2"])
def test_exactly_one_of_two_scales(tmp_path, wide, missing):
    path = tmp_path / "q.safetensors"
    encoded.write(path, wide, "nvfp4", one_layer)
    change(path, lambda header: header.pop(DIT + f"transformer_blocks.1.attn1.to_q.{missing}"))
    with pytest.raises(
        sdltx.ModelFileError, match=r"blocks\.1\.attn1\.to_q\.weight' is NVFP4 and lacks one of its two"
    ):
        sdltx.load(path)


def test_other_faults(tmp_path, wide):
    path = tmp_path / "q.safetensors"
    layer = DIT + "transformer_blocks.1.attn1.to_q."
    encoded.write(path, wide, "int8_tensorwise", one_layer)
    change(path, lambda header: header.pop(layer + "weight_scale"))
    with pytest.raises(sdltx.ModelFileError, match="is int8 and lacks its scale"):
        sdltx.load(path)
    encoded.write(path, wide, "int8_tensorwise", one_layer, rotation=256)

    def three(header):
        header[layer + "weight"]["shape"] = [1024, 256]

    change(path, three)
    with pytest.raises(sdltx.ModelFileError, match="is no scale of"):
        sdltx.load(path)
    encoded.write(path, wide, "nvfp4", one_layer)
    header, blob = read_safetensors(path)
    for bad, message in (
        (b'{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 100}', "only powers of four"),
        (b'{"format": "a\xff"}', "is not valid JSON"),
    ):
        begin = len(blob)
        entry = {"dtype": "U8", "shape": [len(bad)], "data_offsets": [begin, begin + len(bad)]}
        write_safetensors(path, {**header, layer + "comfy_quant": entry}, blob + bad)
        with pytest.raises(sdltx.ModelFileError, match=message):
            sdltx.load(path)
    begin = len(blob)
    header[layer + "pre_quant_scale"] = {"dtype": "F32", "shape": [1], "data_offsets": [begin, begin + 4]}
    write_safetensors(path, header, blob + b"1234")
    with pytest.raises(sdltx.ModelMismatchError, match="quantised as 'AWQ'"):
        sdltx.load(path)
