"""Weights in the encodings of ComfyUI's safetensors, written by their definitions."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from commands import read_safetensors, write_safetensors

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3() -> np.ndarray:
    """All 256 values."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    value = np.where(exponent > 0, (1 + mantissa / 8) * 2.0 ** (exponent - 7), mantissa / 8 * 2.0**-6)
    value[(code & 127) == 127] = np.nan
    return np.where(code & 128, -value, value).astype(np.float32)


def e5m2() -> np.ndarray:
    """All 256 values: the upper halves of half precision."""
    return (np.arange(256, dtype=np.uint16) << 8).astype(np.uint16).view(np.float16).astype(np.float32)


def hadamard(size: int) -> np.ndarray:
    """The normalised Kronecker power of the regular matrix of order four."""
    four = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], np.float64) / 2
    h = np.ones((1, 1))
    while len(h) < size:
        h = np.kron(h, four)
    return h


def tiled(scales: np.ndarray) -> np.ndarray:
    """(rows, blocks) bytes as kernels want them: padded to 128 by 4, tile after tile, 32 rows beside each other."""
    rows, blocks = scales.shape
    padded = np.zeros((-(-rows // 128) * 128, -(-blocks // 4) * 4), np.uint8)
    padded[:rows, :blocks] = scales
    tiles = padded.reshape(len(padded) // 128, 4, 32, -1, 4)  # tile row, group of 32, row, tile column, block
    return tiles.transpose(0, 3, 2, 1, 4).reshape(padded.shape)


def int8(weight: np.ndarray, by_row: bool = True, rotation: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The tensors by the end of their names, and the values that they stand for."""
    rows, columns = weight.shape
    if rotation:
        h = hadamard(rotation)
        weight = (weight.reshape(rows, -1, rotation) @ h.T).reshape(rows, columns)
    scale = (np.abs(weight).max(axis=1 if by_row else None, keepdims=True) / 127).astype(np.float32)
    codes = np.clip(np.round(weight / scale), -128, 127).astype(np.int8)
    values = codes.astype(np.float64)
    if rotation:
        values = (values.reshape(rows, -1, rotation) @ hadamard(rotation)).reshape(rows, columns)
    return {"weight": codes, "weight_scale": scale if by_row else scale.reshape(())}, values * scale


def nvfp4(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The same with four-bit floats, a scale for 16 of them and one for all."""
    rows, columns = weight.shape
    table, total = e4m3(), np.float32(np.abs(weight).max() / (6 * 448))
    blocks = weight.reshape(rows, -1, 16)
    wanted = np.abs(blocks).max(axis=-1) / 6 / total
    scales = np.abs(wanted[..., None] - table[:127]).argmin(axis=-1).astype(np.uint8)
    unit = (table[scales] * total)[..., None]
    codes = np.abs((blocks / np.maximum(unit, 1e-30))[..., None] - E2M1).argmin(axis=-1).astype(np.uint8)
    codes = codes.reshape(rows, columns)
    values = (E2M1[codes].reshape(blocks.shape) * unit.astype(np.float64)).reshape(rows, columns)
    packed = codes[:, ::2] << 4 | codes[:, 1::2]
    return {
        "weight": packed,
        "weight_scale": tiled(scales),
        "weight_scale_2": total,
        "input_scale": np.float32(1),
    }, values


def mxfp8(weight: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Eight-bit floats with a power of two for 32 of them."""
    rows, columns = weight.shape
    table = e4m3()
    blocks = weight.reshape(rows, -1, 32)
    power = np.ceil(np.log2(np.abs(blocks).max(axis=-1) / 448))
    unit = (2.0**power)[..., None]
    # The nearest: codes of one sign grow with their values, and the middle between two counts as the smaller.
    positive, scaled = table[:127], blocks / unit
    codes = np.searchsorted((positive[:-1] + positive[1:]) / 2, np.abs(scaled)).astype(np.uint8)
    codes |= np.where((scaled < 0) & (codes > 0), 128, 0).astype(np.uint8)
    values = (table[codes] * unit).reshape(rows, columns)
    return {"weight": codes.reshape(rows, columns), "weight_scale": tiled((power + 127).astype(np.uint8))}, values


def fp8(
    weight: np.ndarray, scaled: bool = True, table: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Eight-bit floats with one scale, or as they are; ``table``: of all codes, else that of e4m3."""
    table = e4m3() if table is None else table
    positive = table[:128][np.isfinite(table[:128])]
    scale = np.float32(np.abs(weight).max() / positive[-1]) if scaled else np.float32(1)
    wanted = np.abs(weight / scale)
    codes = np.searchsorted((positive[:-1] + positive[1:]) / 2, wanted).astype(np.uint8)
    codes |= np.where(weight < 0, 128, 0).astype(np.uint8)
    values = table[codes].astype(np.float64) * scale
    return {"weight": codes, **({"weight_scale": scale} if scaled else {})}, values


FORMATS = {
    "int8_tensorwise": int8,
    "nvfp4": nvfp4,
    "mxfp8": mxfp8,
    "float8_e4m3fn": fp8,
    "float8_e5m2": functools.partial(fp8, table=e5m2()),
}
_FP8 = {
    ("nvfp4", "weight_scale"): "F8_E4M3",
    ("mxfp8", "weight"): "F8_E4M3",
    ("float8_e4m3fn", "weight"): "F8_E4M3",
    ("float8_e5m2", "weight"): "F8_E5M2",
}
_DTYPES = {"float32": "F32", "int8": "I8", "uint8": "U8"}


def write(target: Path, source: str, kind: str, chosen, mark: str = "tensor", **options) -> dict[str, np.ndarray]:
    """A copy of a model with the weights that are ``chosen`` encoded; returns what those stand for.

    mark: where the file says what it is: "tensor", "header" or "none".
    """
    from sdltx import _core

    header, blob = read_safetensors(source)
    metadata = header.pop("__metadata__")
    files, out, parts, meant, layers = _core.ModelFiles([source]), {}, [], {}, {}
    at = 0

    def add(name, dtype, shape, raw):
        nonlocal at
        out[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)

    how = {"format": kind}
    if options.get("rotation"):
        how |= {"convrot": True, "convrot_groupsize": options["rotation"]}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not chosen(name, entry["shape"]):
            add(name, entry["dtype"], entry["shape"], blob[begin:end])
            continue
        tensors, meant[name] = FORMATS[kind](files.tensor(name), **options)
        layer = name.removesuffix("weight")
        for tail, array in tensors.items():
            dtype = _FP8.get((kind, tail))
            array = np.asarray(array)
            add(layer + tail, dtype or _DTYPES[array.dtype.name], array.shape, array.tobytes())
        layers[layer.removesuffix(".")] = how
        if mark == "tensor":
            text = json.dumps(how).encode()
            add(layer + "comfy_quant", "U8", [len(text)], text)
    if mark == "header":
        metadata = {**metadata, "_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    write_safetensors(target, {"__metadata__": metadata, **out}, b"".join(parts))
    return meant
