"""Model files with bytes changed at random, from opening to decoding: a clip or one typed error, never a crash."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from test_model_file import split_files

import sdltx

SEEDS = range(400 if os.environ.get("SDLTX_NIGHTLY") else 15)  # every seed is another file


def changed(data: bytes, seed: int, header: int) -> bytes:
    """1 to 4 bytes or a run of them replaced, most in the first ``header`` bytes, where the structure is."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(header if rng.random() < 0.9 else len(data))
        kind = rng.randrange(4)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice(b'\x00\xff0195-."[]{},: ')
        elif kind == 2:
            out[at : at + 8] = struct.pack("<Q", rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data)]))
        else:
            del out[at : at + rng.randint(1, 8)]
    return bytes(out)


def use(*paths: str) -> str:
    """Opens, encodes, denoises and decodes; returns what came of it."""
    try:
        with sdltx.load(*paths, threads=1) as pipe:
            latents = pipe.sample(
                pipe.encode("a fox"), width=32, height=32, num_frames=9, num_inference_steps=1, seed=1
            )
            pipe.decode(latents)  # sound too
    except (sdltx.ModelFileError, sdltx.ModelMismatchError, sdltx.BackendError, sdltx.OutOfMemoryError) as error:
        assert "\n" not in str(error)
        assert str(error).startswith("[")
        return type(error).__name__
    return "clip"


def counted(outcomes: list[str]) -> None:
    counts = {name: outcomes.count(name) for name in sorted(set(outcomes))}
    print(counts)
    assert len(counts) > 1  # the changes neither miss the structure nor destroy every file


@pytest.fixture(autouse=True)
def quiet(caplog):
    with np.errstate(all="ignore"), caplog.at_level("CRITICAL", "sdltx"):
        yield


@pytest.mark.sanitize
def test_mutated_safetensors(tiny_paths, tmp_path):
    data = Path(tiny_paths[0]).read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    path = tmp_path / "x.safetensors"
    outcomes = []
    for seed in SEEDS:
        path.write_bytes(changed(data, seed, header))
        outcomes.append(use(str(path), tiny_paths[1]))
    counted(outcomes)


def scalars(node, path=()):
    """Paths of all values in a configuration that are neither lists nor objects."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from scalars(value, (*path, key))
        else:
            yield (*path, key)


ODD_VALUES = [0, -1, 1, 2, 3, 7, 64, 1000, 2**31, 2**63, 1e-30, 1e300, -1e-3, 0.5, True, None, "x", [], {}, [1, 2]]


@pytest.mark.by_day(1)
@pytest.mark.sanitize
@pytest.mark.parametrize("which", ["checkpoint", "text encoder"])
def test_mutated_configurations(tiny_paths, tmp_path, which):
    """Values that are valid JSON and odd: each reaches the code that computes with it, or is refused."""
    for file in Path(tiny_paths[1]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    checkpoint = Path(tiny_paths[0]).read_bytes()
    length = struct.unpack("<Q", checkpoint[:8])[0]
    header, tensors = json.loads(checkpoint[8 : 8 + length]), checkpoint[8 + length :]
    original = header["__metadata__"]["config"]
    if which == "text encoder":
        original = (tmp_path / "config.json").read_text()
    outcomes = []
    for seed in SEEDS[:60]:
        rng, config = random.Random(seed), json.loads(original)
        for path in rng.sample(list(scalars(config)), rng.randint(1, 2)):
            node = config
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = rng.choice(ODD_VALUES)
        if which == "text encoder":
            (tmp_path / "config.json").write_text(json.dumps(config))
            outcomes.append(use(tiny_paths[0], str(tmp_path)))
            continue
        header["__metadata__"]["config"] = json.dumps(config)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + tensors)
        outcomes.append(use(str(tmp_path / "x.safetensors"), tiny_paths[1]))
        (tmp_path / "x.safetensors").unlink()
    counted(outcomes)


@pytest.mark.sanitize
def test_mutated_gguf(tiny_paths, tmp_path):
    folder, gemma = split_files(tiny_paths, tmp_path, "Q8_0")
    path = Path(folder) / "dit.gguf"
    data = path.read_bytes()
    header = data.find(b"transformer_blocks.2") + 4096
    outcomes = []
    for seed in SEEDS:
        path.write_bytes(changed(data, seed, header))
        outcomes.append(use(folder, gemma))
    counted(outcomes)


@pytest.mark.sanitize
def test_mutated_text_encoders(tiny_paths, tmp_path):
    for file in Path(tiny_paths[1]).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    outcomes = []
    for name in ("config.json", "tokenizer.model", "model.safetensors"):
        data = (tmp_path / name).read_bytes()
        header = 8 + struct.unpack("<Q", data[:8])[0] if name.endswith("safetensors") else len(data)
        for seed in SEEDS[:50]:
            (tmp_path / name).write_bytes(changed(data, seed, header))
            outcomes.append(use(tiny_paths[0], str(tmp_path)))
        (tmp_path / name).write_bytes(data)
    counted(outcomes)
