"""Model files with the names, shapes and configuration of the releases and next to no values: sparse files."""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable, Collection
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

DIT = "model.diffusion_model."
REAL = Path(__file__).parent / "data" / "real"


def manifest(model: str) -> dict[str, Any]:
    """Tensors (name -> shape) and config of ltx-2.3-22b, ltx-2.0-19b or gemma-3-12b-it; "f32": what is not BF16."""
    return json.loads(gzip.decompress((REAL / f"{model}.json.gz").read_bytes()))


def write_sparse(
    path: Path,
    tensors: dict[str, list[int]],
    dtypes: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A safetensors file whose data takes no space on disk. ``dtypes``: of what is not BF16."""
    dtypes = dtypes or {}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, shape in tensors.items():
        dtype = dtypes.get(name, "BF16")
        size = prod(shape) * {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1}[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
        # A file without any value is taken for a download that stopped.
        for name, shape in tensors.items():
            if prod(shape) >= 1 << 15:
                file.seek(8 + len(text) + header[name]["data_offsets"][0])
                file.write(b"\0\0\0\1")
    return path


def write_checkpoint(path: Path, wanted: Callable[[str], bool] = lambda name: True, model: str = "ltx-2.3-22b") -> Path:
    """The checkpoint of a release, or those of its tensors that are ``wanted``."""
    real = manifest(model)
    tensors = {name: shape for name, shape in real["tensors"].items() if wanted(name)}
    metadata = {"config": json.dumps(real["config"]), "model_version": model.split("-")[1] + ".0"}
    return write_sparse(path, tensors, dict.fromkeys(real["f32"], "F32"), metadata)


def release_of_25() -> dict[str, dict[str, Any]]:
    """The files of LTX-2.5 by kind: tensors (name -> shape), dtypes of what is not BF16, metadata."""
    return json.loads(gzip.decompress((REAL / "ltx-2.5-22b.json.gz").read_bytes()))["files"]


NAMES_OF_25 = {
    "transformer": "diffusion_models/ltx-2.5-22b-distilled-transformer-bf16",
    "text_encoder": "text_encoders/gemma4-12b-with-proj-ltx-2.5-bf16",
    "video_vae_conv": "vae/ltx-2.5-video-vae-conv-bf16",
    "video_vae": "vae/ltx-2.5-video-vae-bf16",
    "audio_vae": "vae/ltx-2.5-audio-vae-bf16",
    "spatial_upscaler": "latent_upscale_models/ltx-2.5-latent-spatial-upscaler-x2-bf16-1.0",
    "temporal_upscaler": "latent_upscale_models/ltx-2.5-latent-temporal-upscaler-x2-bf16-1.0",
    "duration_head": "model_patches/ltx-2.5-duration-head-bf16",
}


def write_release_of_25(folder: Path, tokenizer: bytes, kinds: Collection[str] = tuple(NAMES_OF_25)) -> dict[str, Path]:
    """Those files, as the release lays them out. tokenizer: takes the place of Google's."""
    written = {}
    for kind in kinds:
        told = release_of_25()[kind]
        path = folder / f"{NAMES_OF_25[kind]}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: [4] if shape == [-1] else shape for name, shape in told["tensors"].items()}
        if "tokenizer_json" in tensors:
            tensors["tokenizer_json"] = [len(tokenizer)]
        written[kind] = write_sparse(path, tensors, told["dtypes"], told["metadata"])
        if "tokenizer_json" in tensors:
            put(path, "tokenizer_json", tokenizer)
    return written


def put(path: Path, name: str, values: bytes) -> None:
    """Writes the values of a tensor."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + length + json.loads(file.read(length))[name]["data_offsets"][0])
        file.write(values)


def write_gguf(path: Path, types: dict[str, str], keys: dict[str, str]) -> Path:
    """A GGUF of the transformer of LTX-2.3 in these types, without the prefix and without values; sparse as well."""
    import gguf

    shapes = manifest("ltx-2.3-22b")["tensors"]
    writer = gguf.GGUFWriter(path, "ltxv")
    for key, value in keys.items():
        writer.add_string(key, value)
    for name, kind in types.items():
        shape, quantisation = shapes[DIT + name], gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[quantisation]
        stored = [*shape[:-1], shape[-1] // block * size] if block > 1 else shape
        dtype = np.dtype(np.uint8 if block > 1 else np.float32)
        writer.add_tensor_info(name, stored, dtype, prod(shape) // block * size, raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with path.open("r+b") as file:
        at = -(-file.seek(0, 2) // 32) * 32
        writer.close()
        for name, kind in types.items():
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
            file.seek(at)
            file.write(b"\0\0\0\1")
            at += -(-(prod(shapes[DIT + name]) // block * size) // 32) * 32
        file.truncate(at)
    return path


def write_fp8(path: Path) -> Path:
    """The checkpoint of LTX-2.3 as its FP8 releases have it: the large weights of most blocks scaled, and marked."""
    real = manifest("ltx-2.3-22b")
    dtypes, shapes = {}, {}
    layers = {}
    for name, shape in real["tensors"].items():
        shapes[name] = shape
        if name in real["f32"]:
            dtypes[name] = "F32"
        block = re.match(rf"{re.escape(DIT)}transformer_blocks\.(\d+)\.", name)
        if block and 1 <= int(block[1]) <= 46 and len(shape) == 2 and "weight" in name and "gate" not in name:
            dtypes[name] = "F8_E4M3"
            layer = name.removesuffix(".weight")
            layers[layer] = {"format": "float8_e4m3fn"}
            for scale in ("weight_scale", "input_scale"):
                shapes[f"{layer}.{scale}"], dtypes[f"{layer}.{scale}"] = [], "F32"
    metadata = {
        "config": json.dumps(real["config"]),
        "model_version": "2.3.0",
        "_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers}),
    }
    return write_sparse(path, shapes, dtypes, metadata)
