"""Files made at random, read by us and by the packages of the formats: the same is accepted, with the same bytes.

We are stricter where STRICTER says so, and nowhere else.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broken_models as make
import gguf
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

import sdltx
import sdltx._core_tests
from sdltx import _core

FILES = 5_000 if os.environ.get("SDLTX_NIGHTLY") else 200  # of each format

STRICTER = {
    "is longer than": "names of more than 1,024 bytes: no model has them, and each is kept several times",
    "has a name of": "names of more than 1,024 bytes in safetensors",
    "has more than 8 dimensions": "ggml has four, and nothing of a model has more than five",
    "lists more than": "more than 32,768 tensors: what is kept of each would take a multiple of the file",
    "is listed twice": "one name of two tensors: the package keeps the last one",
    "larger than any file": "shapes of more than 2^62 bytes, also where one side is 0",
    "whose rows are no whole number of blocks": "rows that the package of GGUF cuts",
    "overlap": "tensors that share bytes in a GGUF, which no writer makes; safetensors refuses them, too",
    "beyond its end": "tensors that end after the file, of which the package gives what is there",
    "unaligned offset": "what the alignment that a file tells forbids",
    "has the alignment": "alignments that are no power of two up to 1 MiB",
    "has the metadata key": "a key of a GGUF that is there twice",
    "lists tensor": "a tensor of a GGUF that is there twice",
    "in the middle of its header": "a text of a GGUF that is cut off, of which the package takes what is there",
    "holds zeros": "many tensors without any value: a download that stopped",
    "is neither": "files of less than 10 bytes",
}
# Where the package of safetensors is stricter, and we need not be.
LOOSER = {
    "not fully covered": "bytes that belong to no tensor: they are never read",
    "unknown variant": "types that nobody knows: a tensor that no part needs may be of one",
    "invalid offset": "holes between tensors: the same as bytes after them",
    "invalid type": "metadata that are no text, which are passed over",
}

numbers = st.one_of(st.integers(0, 40), st.sampled_from([2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1, -1]))
names = st.one_of(st.sampled_from(["a", "b", "x.weight", ""]), st.text(max_size=8))
dtypes = st.sampled_from([*make.SIZES, "f32"])


@st.composite
def tensor_entries(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Entries one after the other, most of them right, and the bytes that they need."""
    entries, at = {}, 0
    for _ in range(draw(st.integers(0, 4))):
        dtype, shape = draw(dtypes), draw(st.lists(st.integers(0, 4), max_size=4))
        size = make.SIZES.get(dtype, 1) * int(np.prod(shape, dtype=np.int64))
        told = make.entry(dtype, shape, [at, at + size])
        if draw(st.integers(0, 9)) == 0:
            wrong = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
            told[wrong] = draw(st.one_of(st.lists(numbers, max_size=4), numbers, st.text(max_size=3), st.none()))
        entries[draw(names)] = told
        at += size
    return entries, at


@st.composite
def safetensors_files(draw: st.DrawFn) -> bytes:
    header, size = draw(tensor_entries())
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(names, st.one_of(names, numbers), max_size=3))
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 3))
    data = draw(st.binary(min_size=size, max_size=size))
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, size))] + draw(st.binary(max_size=8))
    length = draw(numbers) if draw(st.integers(0, 9)) == 0 else len(text)
    return struct.pack("<Q", length % 2**64) + text + data


def ours(path: Path) -> dict[str, tuple[tuple[int, ...], bytes]] | str:
    """Shapes and values by name, or why not."""
    try:
        files = _core.ModelFiles([str(path)])
    except sdltx.SdltxError as error:
        return str(error)
    out = {}
    for name in files.names():
        try:
            array = files.tensor(name)
        except sdltx.ModelMismatchError:  # of a type that no weight has
            continue
        out[name] = (array.shape, array.tobytes())
    return out


def is_told(error: str) -> bool:
    return any(words in error for words in STRICTER)


Check = Callable[[Path, Any], None]


def compare(files: st.SearchStrategy[bytes], path: Path, check: Check) -> None:
    """Runs ``check`` with many files and what we make of them; most are to be accepted, and many are not."""
    accepted = Counter[bool]()

    @given(data=files)
    @settings(max_examples=FILES)
    def each(data: bytes) -> None:
        path.write_bytes(data)
        mine = ours(path)
        accepted[not isinstance(mine, str)] += 1
        check(path, mine)

    each()
    print(f"{path.name}: {accepted[True]} accepted, {accepted[False]} refused")
    assert min(accepted.values()) > FILES / 10 and len(accepted) == 2


def test_safetensors(tmp_path):
    compare(safetensors_files(), tmp_path / "x.safetensors", check_safetensors)


def check_safetensors(path: Path, mine: Any) -> None:
    try:
        with safe_open(path, framework="numpy") as file:
            theirs: Any = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            theirs = {name: (tuple(s.get_shape()), s.get_dtype(), name) for name, s in theirs.items()}
            if isinstance(mine, str):
                assert is_told(mine), mine
                return
            assert theirs.keys() >= mine.keys()
            for name, (shape, values) in mine.items():
                if theirs[name][1] not in ("BF16",) and not theirs[name][1].startswith("F8"):
                    expected = file.get_tensor(name)
                    assert expected.shape == shape
                    np.testing.assert_array_equal(
                        np.frombuffer(values, np.float32), expected.astype(np.float32).ravel()
                    )
    except (SafetensorError, OSError) as error:
        if not isinstance(mine, str):
            assert any(words in str(error) for words in LOOSER), str(error)


gguf_kinds = st.sampled_from([0, 1, 30, 2, 8, 12, 24, 26, 28, 4, 31, 99])
sizes_of = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()}


@st.composite
def gguf_files(draw: st.DrawFn) -> bytes:
    values, tensors, at = [], [], 0
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.integers(0, 13))
        raw = {
            8: make.value(8, make.text_of(draw(st.text(max_size=5)))),
            9: make.array(4, 2, bytes(8)) if draw(st.booleans()) else make.array(8, 1, make.text_of("x")),
        }.get(kind, make.value(kind, bytes({0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 10: 8, 11: 8, 12: 8}.get(kind, 4))))
        values.append((draw(names), raw))
    if draw(st.integers(0, 4)) == 0:
        values.append(
            ("general.alignment", make.value(4, struct.pack("<I", draw(st.sampled_from([0, 1, 8, 32, 33, 64])))))
        )
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(gguf_kinds)
        block, size = sizes_of.get(kind, (1, 4))
        shape = [draw(st.sampled_from([block, 2 * block, 1, 0])), *draw(st.lists(st.integers(0, 3), max_size=3))]
        if draw(st.integers(0, 19)) == 0:
            shape[draw(st.integers(0, len(shape) - 1))] = draw(numbers)
        offset = draw(numbers) if draw(st.integers(0, 9)) == 0 else at
        tensors.append(make.tensor(draw(names), tuple(shape), kind, offset % 2**64))
        at += -(-max(1, int(np.prod([min(abs(n), 600) for n in shape])) // block * size) // 32) * 32
    whole = make.gguf(values, tensors, at)
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 9)) == 0 else whole


def test_gguf(tmp_path):
    compare(gguf_files(), tmp_path / "x.gguf", check_gguf)


def check_gguf(path: Path, mine: Any) -> None:
    try:
        with np.errstate(all="ignore"):
            reader = gguf.GGUFReader(path)
            theirs = {t.name: (tuple(int(n) for n in reversed(t.shape)), np.array(t.data)) for t in reader.tensors}
    except Exception as error:  # whatever it comes to
        assert isinstance(mine, str), (mine, repr(error))
        return
    if isinstance(mine, str):
        assert is_told(mine), mine
        return
    assert theirs.keys() >= mine.keys()
    for name, (shape, values) in mine.items():
        assert theirs[name][0] == shape
        if theirs[name][1].dtype in (np.float32, np.float16):
            expected = theirs[name][1].astype(np.float32).ravel()
            np.testing.assert_array_equal(np.frombuffer(values, np.float32), expected)
