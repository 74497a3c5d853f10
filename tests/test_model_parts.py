"""Models in several files: shards and split GGUFs in any spelling are the same model, also when one part is named."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import encoded
import gguf
import numpy as np
import pytest
import test_hostile as hostile
import wide_rows
from commands import read_safetensors, write_safetensors
from test_encodings import KINDS, is_large, velocities

import sdltx
from sdltx import _core

CANONICAL, DIT = "language_model.model.", "model.diffusion_model."


def shard(folder: Path, source: str, rename, count: int, index: bool = True) -> list[Path]:
    """``source`` in ``count`` files with other names, the first tensors in the first."""
    folder.mkdir(parents=True, exist_ok=True)
    header, blob = read_safetensors(source)
    metadata = header.pop("__metadata__", None)
    named = sorted((rename(name), entry) for name, entry in header.items())
    files, where = [], {}
    for i in range(count):
        part = {} if metadata is None or i else {"__metadata__": metadata}
        data = b""
        for name, entry in named[i * len(named) // count : (i + 1) * len(named) // count]:
            begin, end = entry["data_offsets"]
            part[name] = entry | {"data_offsets": [len(data), len(data) + end - begin]}
            data += blob[begin:end]
            where[name] = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        files.append(Path(write_safetensors(folder / f"model-{i + 1:05d}-of-{count:05d}.safetensors", part, data)))
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return files


def beside(folder: Path, gemma: str) -> None:
    """What a folder of Gemma has besides weights."""
    for file in Path(gemma).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)


@pytest.fixture(scope="module")
def expected(tiny_paths):
    with sdltx.load(*tiny_paths, precision="f32") as pipe:
        return pipe.encode("a red fox").video


GEMMA = {
    "Google": lambda name: name,
    "transformers 5": lambda name: "model." + name.replace(CANONICAL, "language_model."),
    "text alone": lambda name: name.replace("language_model.", ""),
    "bare": lambda name: name.replace(CANONICAL, ""),
}
CHECKPOINT = {
    "released": lambda name: name,
    "ComfyUI": lambda name: name.replace(DIT, "diffusion_model."),
    "bare": lambda name: name.replace(DIT, ""),
}


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("spelling", GEMMA)
def test_a_text_encoder_in_shards(tiny_paths, tmp_path, expected, spelling, index):
    shard(tmp_path / "g", f"{tiny_paths[1]}/model.safetensors", GEMMA[spelling], 3, index)
    beside(tmp_path / "g", tiny_paths[1])
    with sdltx.load(tiny_paths[0], tmp_path / "g", precision="f32") as pipe:
        np.testing.assert_array_equal(pipe.encode("a red fox").video, expected)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("spelling", CHECKPOINT)
def test_a_checkpoint_in_shards(tiny_paths, tmp_path, expected, spelling, index):
    files = shard(tmp_path / "c", tiny_paths[0], CHECKPOINT[spelling], 8, index)
    for named in ([tmp_path / "c"], files[:1], files[4:5], files[::-1]):
        with sdltx.load(*named, tiny_paths[1], precision="f32") as pipe:
            pipe.require("transformer", "video decoder", "vocoder")
            np.testing.assert_array_equal(pipe.encode("a red fox").video, expected)


def test_a_part_that_is_not_there(tiny_paths, tmp_path):
    files = shard(tmp_path / "c", tiny_paths[0], CHECKPOINT["bare"], 3)
    files[1].unlink()
    with pytest.raises(sdltx.ModelFileError, match=r"is one of 3 parts, and .*model-00002-of-00003.* is not there"):
        sdltx.load(files[0], tiny_paths[1])


def split_gguf(folder: Path, tensors: dict[str, np.ndarray], count: int, arch: str, metadata) -> list[Path]:
    """As llama.cpp's tool splits: the metadata in the first part, which has no tensors of its own."""
    folder.mkdir(exist_ok=True)
    names = sorted(tensors)
    files = []
    for i in range(count):
        files.append(folder / f"model-{i + 1:05d}-of-{count:05d}.gguf")
        writer = gguf.GGUFWriter(files[-1], arch if i == 0 else "")
        if i == 0:
            metadata(writer)
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(names))
        for name in names[(i - 1) * len(names) // (count - 1) : i * len(names) // (count - 1)] if i else ():
            writer.add_tensor(name, tensors[name].astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return files


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", DIT])
def test_a_split_transformer(tiny_paths, tmp_path, expected, prefix):
    source = _core.ModelFiles(tiny_paths[:1])
    tensors = {prefix + name.removeprefix(DIT): source.tensor(name) for name in source.names() if name.startswith(DIT)}
    config = source.metadata("config")
    files = split_gguf(tmp_path / "t", tensors, 4, "ltxv", lambda writer: writer.add_string("config", config))
    parts = sdltx.convert(tiny_paths[0], output=f"{tmp_path / 'parts'}/", type="keep")
    others = [path for path in parts if path.stem not in ("transformer",)]
    for named in ([tmp_path / "t"], files[:1], files[3:]):
        with sdltx.load(*named, *others, tiny_paths[1], precision="f32") as pipe:
            pipe.require("transformer", "text projection")
            assert not pipe.info["note"]
            np.testing.assert_array_equal(pipe.encode("a red fox").video, expected)


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by its type


def read_gguf(path: Path) -> tuple[dict[str, bytes], dict[str, tuple[bytes, bytes]]]:
    """Values by key, with their types, and tensors by name (dimensions and type, data), all in bytes.

    The package gguf takes 15 s for 262,144 words.
    """
    blob, at = path.read_bytes(), 24

    def number(kind: str) -> int:
        nonlocal at
        at += struct.calcsize(kind)
        return struct.unpack_from(kind, blob, at - struct.calcsize(kind))[0]

    def text() -> str:
        nonlocal at
        length = number("<Q")
        at += length
        return blob[at - length : at].decode()

    def skip(kind: int) -> None:
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            kind, count = number("<I"), number("<Q")
            if kind != 8:
                at += _SIZES[kind] * count
            for _ in range(count if kind == 8 else 0):
                text()
        else:
            at += _SIZES[kind]

    n_tensors, n_values = struct.unpack_from("<QQ", blob, 8)
    values, found = {}, []
    for _ in range(n_values):
        key, start = text(), at
        skip(number("<I"))
        values[key] = blob[start:at]
    for _ in range(n_tensors):
        name, start = text(), at
        axes = number("<I")
        at += 8 * axes + 4
        found.append((name, blob[start:at], number("<Q")))
    data = -(-at // 32) * 32
    ends = [*sorted(offset for _, _, offset in found)[1:], len(blob) - data]
    end_of = dict(zip(sorted(offset for _, _, offset in found), ends, strict=True))
    return values, {name: (told, blob[data + at : data + end_of[at]]) for name, told, at in found}


@pytest.mark.by_day(1)
def test_a_split_text_encoder(tmp_path, gemma270):
    """As llama.cpp splits it: the tokenizer and sizes are in the first part, which has no tensors."""
    values, tensors = read_gguf(gemma270)
    names, files = sorted(tensors), []
    for i in range(3):
        files.append(tmp_path / "g" / f"model-{i + 1:05d}-of-00003.gguf")
        files[-1].parent.mkdir(exist_ok=True)
        split = {"split.no": u16(i), "split.count": u16(3), "split.tensors.count": struct.pack("<Ii", 5, len(names))}
        infos, data = b"", b""
        mine = names[(i - 1) * len(names) // 2 : i * len(names) // 2] if i else []
        for name in mine:
            told, raw = tensors[name]
            infos += struct.pack("<Q", len(name)) + name.encode() + told + struct.pack("<Q", len(data))
            data += raw + b"\0" * (-len(raw) % 32)
        hostile.gguf(files[-1], split if i else {**values, **split}, infos, len(mine), data)
    ids = list(range(1, 20))
    want = _core.encode_tokens([str(gemma270)], ids)
    for named in ([str(tmp_path / "g")], [str(files[0])], [str(files[2])]):
        np.testing.assert_array_equal(_core.encode_tokens(named, ids), want)
    assert _core.Tokenizer([str(files[2])]).size == _core.Tokenizer([str(gemma270)]).size


def u16(number: int) -> bytes:
    return struct.pack("<IH", 2, number)


@pytest.mark.by_day(2)
@pytest.mark.parametrize("kind", KINDS)
def test_scales_in_another_shard(tmp_path, kind):
    """A weight and what its quantisation has beside it need not be in one file."""
    source = wide_rows.write(tmp_path / "wide.safetensors")
    name, options = KINDS[kind]
    chosen = lambda name, shape: is_large(name, shape) and "_blocks.1." in name  # noqa: E731
    encoded.write(tmp_path / "q.safetensors", source, name, chosen, **options)
    header, blob = read_safetensors(tmp_path / "q.safetensors")
    metadata = header.pop("__metadata__")
    folder = tmp_path / "apart"
    folder.mkdir()
    for i, wanted in enumerate((True, False), 1):
        part, data = {"__metadata__": metadata}, bytearray()
        for tensor, entry in header.items():
            if tensor.endswith(".weight") is wanted:
                begin, end = entry["data_offsets"]
                part[tensor] = entry | {"data_offsets": [len(data), len(data) + end - begin]}
                data += blob[begin:end]
        write_safetensors(folder / f"x-{i:05d}-of-00002.safetensors", part, data)
    for a, b in zip(velocities(tmp_path / "q.safetensors", "auto"), velocities(folder, "auto"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["C64", "F4", "F6_E2M3", "F99"])
def test_a_type_that_nobody_knows(tiny_paths, tmp_path, dtype):
    """In a tensor without a use it does not matter; what is needed is refused by name."""
    header, blob = read_safetensors(tiny_paths[0])
    header["something.else"] = {"dtype": dtype, "shape": [3], "data_offsets": [len(blob), len(blob) + 5]}
    path = write_safetensors(tmp_path / "x.safetensors", header, blob + bytes(5))
    sdltx.load(path, tiny_paths[1]).close()
    sdltx.convert(path, output=tmp_path / "y.safetensors", type="keep")
    header[DIT + "patchify_proj.bias"]["dtype"] = dtype
    path = write_safetensors(tmp_path / "x.safetensors", header, blob + bytes(5))
    with pytest.raises(sdltx.ModelMismatchError, match=f"weights of the type {dtype}"):
        sdltx.load(path, tiny_paths[1])


@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL", "F64"])
def test_numbers_that_nothing_needs_are_left_out(tiny_paths, tmp_path, dtype):
    size = {"I64": 8, "U8": 1, "BOOL": 1, "F64": 8}[dtype]
    header, blob = read_safetensors(tiny_paths[0])
    name = "vae.decoder.num_batches_tracked"
    header[name] = {"dtype": dtype, "shape": [], "data_offsets": [len(blob), len(blob) + size]}
    path = write_safetensors(tmp_path / "x.safetensors", header, blob + bytes(size))
    (converted,) = sdltx.convert(path, output=tmp_path / "y.safetensors", type="keep")
    assert name not in read_safetensors(converted)[0]
