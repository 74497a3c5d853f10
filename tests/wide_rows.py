"""A random transformer in the layout of LTX-2.3 whose rows are multiples of 256, as every type of ggml needs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from commands import read_safetensors, write_safetensors
from conftest import DATA

DIT = "model.diffusion_model."
BLOCKS = 2  # of the tiny model's 3
FACTOR = 8  # of the widths of the tiny model: 512 for video, 256 for sound
_KEPT = {"patchify_proj.weight": 1, "proj_out.weight": 0, "proj_out.bias": 0}  # the axis that counts latent channels


def write(path: Path) -> str:
    """Writes it in BF16 and returns the path."""
    header, _ = read_safetensors(DATA / "tiny-a" / "tiny-ltx-2.3.safetensors")
    config = json.loads(header.pop("__metadata__")["config"])
    section = config["transformer"]
    section["num_layers"] = BLOCKS
    for key, value in section.items():
        if key.endswith(("attention_head_dim", "cross_attention_dim")):
            section[key] = value * FACTOR
    rng = np.random.default_rng(7)
    out, blob = {"__metadata__": {"config": json.dumps(config), "model_version": "2.3.0"}}, bytearray()
    for name, entry in header.items():
        if not name.startswith(DIT) or name.startswith(f"{DIT}transformer_blocks.{BLOCKS}."):
            continue
        shape = [n if _is_kept(name, axis) else n * FACTOR for axis, n in enumerate(entry["shape"])]
        values = _values(name, shape, rng)
        raw = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # BF16, cut off
        out[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    return write_safetensors(path, out, blob)


def _is_kept(name: str, axis: int) -> bool:
    for tail, kept in _KEPT.items():
        if name.endswith(tail):
            return axis == kept
    if "to_gate_logits" in name or "scale_shift_table" in name or "learnable_registers" in name:
        return axis == 0  # heads, or rows of a table
    return "timestep_embedder.linear_1.weight" in name and axis == 1  # frequencies of the time embedding


def _values(name: str, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("_norm.weight"):
        return 1 + 0.1 * x
    if name.endswith(".bias"):
        return 0.02 * x
    if "registers" in name:
        return x
    return x * np.float32(shape[-1] ** -0.5)
