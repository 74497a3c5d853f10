"""What a file or a number may ask for: memory in proportion to the file, and no more than a model can have."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from commands import read_safetensors, write_safetensors
from safetensors import safe_open
from safetensors.numpy import save_file

import sdltx

MIB = 2**20


def peak_of(code: str, *arguments: str) -> tuple[int, str]:
    """Bytes that ``code`` takes more than the imports before it, and what it prints."""
    script = f"""
import resource, sys, numpy, sdltx, sdltx._core_tests
from sdltx import _core
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {code}
except sdltx.SdltxError as error:
    print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    return int(peak), "\n".join(said)


def gguf(path, values: dict[str, bytes], tensors: bytes = b"", n_tensors: int = 0, data: bytes = b""):
    """A GGUF file of metadata in bytes: type and value."""
    out = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, len(values))
    for key, value in values.items():
        out += struct.pack("<Q", len(key)) + key.encode() + value
    out += tensors
    path.write_bytes(out + b"\0" * (-len(out) % 32) + data)
    return path


def string(text: str) -> bytes:
    return struct.pack("<IQ", 8, len(text)) + text.encode()


def u32(number: int) -> bytes:
    return struct.pack("<II", 4, number)


@pytest.mark.parametrize("layers", [100_000, 2**20])
def test_layers_of_a_gguf(tmp_path, layers):
    """A file of 1.5 kB that claims a million layers: an answer, and in no memory."""
    keys = {
        "general.architecture": string("gemma3"),
        **{
            f"gemma3.{name}": u32(8) for name in ("embedding_length", "attention.head_count", "attention.head_count_kv")
        },
        **{f"gemma3.{name}": u32(8) for name in ("attention.key_length", "feed_forward_length")},
        "gemma3.attention.sliding_window": u32(8),
        "gemma3.attention.layer_norm_rms_epsilon": struct.pack("<If", 6, 1e-6),
        "gemma3.block_count": u32(layers),
    }
    name = "token_embd.weight"
    tensor = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQQIQ", 2, 8, 8, 0, 0)
    path = gguf(tmp_path / "x.gguf", keys, tensor, 1, np.ones(64, np.float32).tobytes())
    peak, said = peak_of("print(sdltx.inspect(sys.argv[1]).problems)", str(path))
    assert "'gemma3.block_count' is not between 1 and 1024" in said
    assert peak < 40 * MIB


def test_layers_of_a_connector(tiny_paths, tmp_path):
    header, blob = read_safetensors(tiny_paths[0])
    config = json.loads(header["__metadata__"]["config"])
    config["transformer"]["connector_num_layers"] = 65_536
    header["__metadata__"]["config"] = json.dumps(config)
    path = write_safetensors(tmp_path / "x.safetensors", header, blob)
    peak, said = peak_of("sdltx.load(sys.argv[1])", path)
    assert "'connector_num_layers' is not between 1 and 1024" in said
    assert peak < 40 * MIB


def test_a_long_array_of_numbers(tmp_path):
    """Numbers stay where they lie in the file."""
    data = struct.pack("<IIQ", 9, 0, 64 * MIB) + bytes(64 * MIB)
    path = gguf(tmp_path / "x.gguf", {"x": data})
    peak, _ = peak_of("_core.ModelFiles([sys.argv[1]])", str(path))
    assert peak < 100 * MIB  # the pages that were looked at are counted, if at all


@pytest.mark.parametrize("where", ["mark", "header", "config.json", "index", "tensors"])
def test_much_json(tmp_path, tiny_paths, where):
    much = "[" + "[]," * (12 * MIB) + "[]]"
    path = tmp_path / "x.safetensors"
    code = "_core.ModelFiles([sys.argv[1]])"
    if where == "mark":
        blob = much.encode()
        entry = {"dtype": "U8", "shape": [len(blob)], "data_offsets": [0, len(blob)]}
        write_safetensors(path, {"x.comfy_quant": entry}, blob)
        expected = "no mark of a quantisation"
    elif where == "header":
        text = f'{{"x": {much}}}'.encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        expected = "holds more than 524288 values"
    elif where == "tensors":
        one = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
        text = ("{" + ",".join(f'"{i}":{one}' for i in range(2**18 + 1)) + "}").encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        expected = "lists more than 32769 entries"
    elif where == "index":
        (tmp_path / "model.safetensors.index.json").write_text(f'{{"weight_map": {{}}, "x": {much}}}')
        path, expected = tmp_path, "holds more than 524288 values"
    else:
        folder = tmp_path / "gemma"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((type(tmp_path)(tiny_paths[1]) / "model.safetensors").read_bytes())
        (folder / "config.json").write_text(f'{{"x": {much}}}')
        path, expected = folder, "holds more than 524288 values"
        code = "print(sdltx.inspect(sys.argv[1]).problems)"
    peak, said = peak_of(code, str(path))
    assert expected in said
    assert peak < 600 * MIB


def test_a_long_configuration_beside(tmp_path, tiny_paths):
    folder = tmp_path / "gemma"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((type(tmp_path)(tiny_paths[1]) / "model.safetensors").read_bytes())
    with (folder / "config.json").open("wb") as file:
        file.truncate(2**33)  # a hole; nothing of it is on the disk
    peak, said = peak_of("print(sdltx.inspect(sys.argv[1]).problems)", str(folder))
    assert "is larger than 64 MiB" in said
    assert peak < 40 * MIB


@pytest.mark.by_day(1)
@pytest.mark.parametrize("rate", [47_999, 999_983, 1])
def test_rates_without_a_common_divisor(rate):
    """The filters of all phases would take 128 GB; each takes what it hears."""
    peak, _ = peak_of(f"_core.ops.resample(numpy.ones((2, 4000), numpy.float32), {rate}, 16000)")
    assert peak < 64 * MIB + 2 * 4 * 4000 * 16000 // rate * 2


# --- what is decoded is laid out by its configuration ---


def with_vae(tiny_paths, tmp_path, change):
    header, blob = read_safetensors(tiny_paths[0])
    config = json.loads(header["__metadata__"]["config"])
    change(config["vae"])
    header["__metadata__"]["config"] = json.dumps(config)
    return write_safetensors(tmp_path / "x.safetensors", header, blob)


@pytest.mark.parametrize("side", ["decoder", "encoder"])
@pytest.mark.parametrize(
    ("change", "cell"),
    [
        (lambda blocks: [b for b in blocks if not b[0].startswith("compress_time")], "frames"),
        (lambda blocks: [b for b in blocks if b[0] == "res_x"], "1 frames and 4x4"),
        (lambda blocks: [*blocks, ["compress_all", {}]], "frames"),
    ],
)
def test_a_video_vae_of_another_compression_is_refused(tiny_paths, tmp_path, side, change, cell):
    def edit(vae):
        blocks = change(vae[f"{side}_blocks"])
        suffix = "_res" if side == "encoder" else ""
        vae[f"{side}_blocks"] = [[b[0] if b[0] != "compress_all" else "compress_all" + suffix, b[1]] for b in blocks]

    path = with_vae(tiny_paths, tmp_path, edit)
    with pytest.raises(sdltx.ModelMismatchError, match=f"{side}_blocks' makes cells of .*{cell}"):
        sdltx.load(path)


def test_a_vocoder_that_makes_too_much_is_refused(tiny_paths, tmp_path):
    header, blob = read_safetensors(tiny_paths[0])
    config = json.loads(header["__metadata__"]["config"])
    vocoder = config["vocoder"]["vocoder"]
    stages = len(vocoder["upsample_rates"])
    vocoder["upsample_rates"] = [64] * stages
    vocoder["upsample_kernel_sizes"] = [64] * stages
    header["__metadata__"]["config"] = json.dumps(config)
    with pytest.raises(sdltx.ModelMismatchError, match="rates, kernel sizes and dilations contradict"):
        sdltx.load(write_safetensors(tmp_path / "x.safetensors", header, blob))


def test_many_upscalers(tiny, tiny_dir):
    """Factors are multiplied; too many of them are refused before."""
    upscaler = tiny_dir / "tiny-spatial-upscaler-x2.safetensors"
    for count in (5, 62, 1000):
        with pytest.raises(sdltx.InvalidRequestError, match=f"there are {count} upscalers; at most 4"):
            tiny.resolve(upscaler=[upscaler] * count)


# --- marks of one part that say something of another ---


def test_a_companion_does_not_distil_the_transformer(tiny_paths, tmp_path):
    """A VAE that was split off a distilled checkpoint, beside another transformer."""
    distilled = tmp_path / "ltx-2.3-distilled.safetensors"
    distilled.write_bytes(type(tmp_path)(tiny_paths[0]).read_bytes())
    for part in ("video_vae", "audio_vae", "text_projection"):
        (path,) = sdltx.convert(distilled, output=tmp_path / f"{part}.safetensors", type="keep", parts=[part])
        with safe_open(path, "np") as file:
            assert "sdltx.defaults" not in file.metadata()
            assert file.metadata()["format"] == "pt"
    (dev,) = sdltx.convert(tiny_paths[0], output=tmp_path / "ltx-dev.safetensors", type="keep", parts=["transformer"])
    (own,) = sdltx.convert(distilled, output=tmp_path / "own.safetensors", type="keep", parts=["transformer"])
    companions = [tmp_path / f"{part}.safetensors" for part in ("video_vae", "text_projection")]
    # As earlier versions wrote it.
    header, blob = read_safetensors(companions[0])
    header["__metadata__"]["sdltx.defaults"] = '{"distilled": true}'
    write_safetensors(companions[0], header, blob)
    with sdltx.load(dev, *companions, tiny_paths[1]) as pipe:
        assert not pipe.info["distilled"]
        assert pipe.info["preset"] == "dev"
    with sdltx.load(own, *companions, tiny_paths[1]) as pipe:
        assert pipe.info["distilled"]


def test_a_companion_has_a_version_of_its_own(tiny_paths, tmp_path):
    header, blob = read_safetensors(tiny_paths[0])
    header["__metadata__"].pop("model_version", None)
    bare = write_safetensors(tmp_path / "transformer.safetensors", header, blob)
    other = tmp_path / "other.safetensors"
    save_file({"something.else": np.zeros(1, np.float32)}, other, metadata={"model_version": "2.5.0"})
    with sdltx.load(bare, other, tiny_paths[1]) as pipe:
        assert pipe.info["version"] == "2.3"
