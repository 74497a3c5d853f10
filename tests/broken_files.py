"""Files that are not what they should be, made by rules: each is a result or one typed error, at once and in little
memory. A case is named by its kind and by what is wrong; ``accepted`` are those that are odd and right."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class Case(NamedTuple):
    """A broken file: what it is given as, what is wrong with it, and what it holds."""

    kind: str
    name: str
    data: bytes
    accepted: bool | None = False  # None: as the library that reads it decides


# --- safetensors ---

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2}
SIZES |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
MOST_TENSORS = 1 << 15
MOST_VALUES = 1 << 19
LONGEST_HEADER = 100_000_000


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file of a header, as an object or as it is, whose length may be told wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def headers() -> Iterator[Case]:
    good = json.dumps({"a": entry()}).encode()
    n = len(good)
    for name, length in (
        *(("0", 0), ("1", 1), ("less-by-one", n - 1), ("beyond-the-end", n + 9), ("the-whole-file", n + 16)),
        *(("most", LONGEST_HEADER), ("more-than-most", LONGEST_HEADER + 1), ("2^31", 2**31), ("2^32-1", 2**32 - 1)),
        *(("2^63-1", 2**63 - 1), ("2^63", 2**63), ("wraps", 2**64 - 8), ("2^64-1", 2**64 - 1)),
    ):
        yield Case("safetensors", f"length-{name}", safetensors(good, bytes(8), length))
    yield Case("safetensors", "no-tensors", safetensors({}), True)
    for name, text in {
        "not-json": b"{nonsense}", "cut": good[:-1], "twice": good + good, "a-list": b"[{}]", "a-number": b"{1}",
        "nul": b"{\0}", "bad-utf8": b'{"\xff\xfe":{}}', "lone-surrogate": b'{"\\ud800":{}}', "a-comment": b"{/**/}",
        "single-quotes": b"{'a':1}", "nan": b'{"a":NaN}', "huge-number": b'{"a":1e999}', "brackets": b"{" * 1000,
        "many-brackets": b"{" + b"[" * 1_000_000, "only-blanks": b"{" + b" " * 100, "text-without-end": b'{"' + b"a" * 1000,
        "an-escape-at-the-end": b'{"a\\', "key-twice": b'{"a":1,"a":2}', "trailing-comma": b'{"a":1,}',
    }.items():  # fmt: skip
        yield Case("safetensors", f"header-{name}", safetensors(text, bytes(16)))
    for depth in (63, 64, 65):  # with the object around it
        text = b'{"__metadata__":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        yield Case("safetensors", f"depth-{depth}", safetensors(text), depth <= 64)
    for metadata in ([], 1, None, "x", {"a": 1}, {"a": {"b": "c"}}, {"a": None}, {"": ""}, {"config": "{"}):
        yield Case("safetensors", f"metadata-{json.dumps(metadata)}", safetensors({"__metadata__": metadata}), True)
    two = {"a": entry(), "b": entry(offsets=(8, 16))}
    yield Case("safetensors", "bytes-after-the-tensors", safetensors(two, bytes(20)), True)
    yield Case("safetensors", "blanks-after-the-header", safetensors(good + b" " * 7, bytes(8)), True)


def entries() -> Iterator[Case]:
    def one(name: str, told: Any, data: int = 16, accepted: bool = False) -> Case:
        return Case("safetensors", name, safetensors({"a": told}, bytes(data)), accepted)

    for told in (None, 1, "x", [], [1], {}, True):
        yield one(f"entry-{json.dumps(told)}", told)
    for missing in ("dtype", "shape", "data_offsets"):
        told = entry()
        del told[missing]
        yield one(f"without-{missing}", told)
        for value in (None, 1, 1.5, "", "x", True, {}, [None], [[]], ["1"], [True, False], [1.0, 8.0], [-1, 8]):
            # What no part needs may be of a type that nobody knows.
            accepted = missing == "dtype" and isinstance(value, str)
            yield one(f"{missing}-{json.dumps(value)}", {**entry(), missing: value}, accepted=accepted)
    for begin, end in (
        *((8, 0), (0, 9), (0, 7), (1, 9), (9, 17), (16, 24), (2**63, 2**63 + 8), (2**64 - 8, 0), (2**64 - 4, 4)),
        *((0, 2**64 - 1), (0, 2**64), (-8, 0), (0, 1e30)),
    ):
        yield one(f"offsets-{begin}-{end}", entry(offsets=[begin, end]), accepted=(begin, end) == (1, 9))
    yield one("offsets-one", entry(offsets=[0]))
    yield one("offsets-three", entry(offsets=[0, 8, 16]))
    yield one("more-keys", entry(other=1), accepted=True)
    for shape in (
        *([-1], [1.5], [2**40 + 1], [2**63], [2**64], [2**32, 2**32], [2**40, 2**24], [2**31, 2**31, 4], [2**62, 4]),
        *([2**40, 2**40, 2**40], [0, 2**64], [2**33, 2**31], [1] * 9, [3], [1], [], [2, 2]),
    ):
        yield one(f"shape-{shape}", entry(shape=shape))
    for shape in ([0], [0, 2**40], [2**40, 0], [0, 0, 0]):
        yield one(f"empty-{shape}", entry(shape=shape, offsets=[0, 0]), accepted=True)
    yield one("eight-dimensions", entry(shape=[1] * 7 + [2]), accepted=True)
    for dtype, size in SIZES.items():
        for off in (-1, 0, 1):
            told = entry(dtype, [2], [0, 2 * size + off])
            yield one(f"{dtype}-{2 * size + off}-bytes", told, 2 * size + off, off == 0)
    for dtype in ("F4", "f32", "", "F32 ", "X" * 100_000):
        yield one(f"dtype-{dtype[:8]}", entry(dtype), accepted=True)
    for name in ("", "a\0b", "../../x", "a\nb", "\u202e", "__metadata_", "x" * 1024, "x" * 1025):
        data = safetensors({name: entry()}, bytes(8))
        yield Case("safetensors", f"name-{len(name)}-{name[:4]!r}", data, len(name) <= 1024)


def places() -> Iterator[Case]:
    def two(name: str, first: tuple[int, int], second: tuple[int, int], accepted: bool) -> Case:
        tensors = {n: entry("U8", [e - b], [b, e]) for n, (b, e) in {"a": first, "b": second}.items()}
        return Case("safetensors", f"places-{name}", safetensors(tensors, bytes(16)), accepted)

    yield two("in-order", (0, 8), (8, 16), True)
    yield two("in-reverse", (8, 16), (0, 8), True)
    yield two("a-hole", (0, 4), (8, 16), True)
    yield two("a-hole-before", (4, 8), (8, 16), True)
    yield two("overlap-by-one", (0, 9), (8, 16), False)
    yield two("the-same", (0, 8), (0, 8), False)
    yield two("within", (0, 16), (4, 8), False)
    yield two("empty-within", (0, 16), (4, 4), False)
    yield two("empty-at-the-end", (0, 16), (16, 16), True)


def many() -> Iterator[Case]:
    one = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    for count in (MOST_TENSORS - 1, MOST_TENSORS, MOST_TENSORS + 1):
        text = "{" + ",".join(f'"{i}":{one}' for i in range(count)) + "}"
        yield Case("safetensors", f"{count}-tensors", safetensors(text.encode()), count <= MOST_TENSORS)
    for count in (MOST_VALUES - 1, MOST_VALUES, MOST_VALUES + 1):  # with the object and the list
        text = '{"__metadata__":[' + ",".join(["[]"] * (count - 2)) + "]}"
        yield Case("safetensors", f"{count}-values", safetensors(text.encode()), count <= MOST_VALUES)
    for name, item in (("lists", "[]"), ("objects", "{}"), ("numbers", "0"), ("texts", '""'), ("nested", "[[[[]]]]")):
        text = '{"x":[' + ",".join([item] * 700_000) + "]}"
        yield Case("safetensors", f"millions-of-{name}", safetensors(text.encode()))
    keys = "{" + ",".join(f'"{i}":0' for i in range(100_000)) + "}"
    yield Case("safetensors", "millions-of-keys", safetensors(keys.encode()))
    for size in (8 << 20, (8 << 20) + 1, 20 << 20):
        text = b'{"__metadata__":{"a":"' + b"x" * size + b'"}}'
        yield Case("safetensors", f"a-text-of-{size}", safetensors(text), size <= 8 << 20)


# --- GGUF ---


def text_of(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, raw: bytes) -> bytes:
    return struct.pack("<I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return value(9, struct.pack("<IQ", kind, count) + raw)


def tensor(
    name: str | bytes = "a", shape: tuple[int, ...] = (4,), kind: int = 0, offset: int = 0, rank: int | None = None
):
    dims = b"".join(struct.pack("<Q", d % 2**64) for d in shape)
    return (
        text_of(name)
        + struct.pack("<I", len(shape) if rank is None else rank)
        + dims
        + struct.pack("<IQ", kind, offset)
    )


def gguf(
    values: list[tuple[str | bytes, bytes]] = [],  # noqa: B006 (only read)
    tensors: list[bytes] = [],  # noqa: B006
    data: int = 64,
    *,
    version: bytes = struct.pack("<I", 3),
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    n_tensors, n_values = counts or (len(tensors), len(values))
    out = b"GGUF" + version + struct.pack("<QQ", n_tensors, n_values)
    for key, raw in values:
        out += text_of(key) + raw
    out += b"".join(tensors)
    return out + bytes(-len(out) % alignment) + bytes(data)


def ggufs() -> Iterator[Case]:
    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("gguf", name, data, accepted)

    for version in (0, 1, 2, 3, 4, 2**32 - 1):
        told = gguf(tensors=[tensor()], version=struct.pack("<I", version))
        yield case(f"version-{version}", told, version in (2, 3))
    yield case("big-endian", gguf(version=struct.pack(">I", 3)))
    yield case("magic-alone", b"GGUF")
    for count in (1, 2**16, 2**16 + 1, 2**31, 2**32, 2**63, 2**64 - 1):
        yield case(f"claims-{count}-tensors", gguf(counts=(count, 0), data=0))
        yield case(f"claims-{count}-values", gguf(counts=(0, count), data=0))
    for count in (MOST_TENSORS, MOST_TENSORS + 1):
        tensors = [tensor(str(i), (0,)) for i in range(count)]
        yield case(f"{count}-tensors", gguf(tensors=tensors), count <= MOST_TENSORS)
    for count in (2**16, 2**16 + 1):
        values = [(str(i), value(0, b"\1")) for i in range(count)]
        yield case(f"{count}-values", gguf(values, [tensor()]), count <= 2**16)
    for length in (2**63, 2**64 - 1, 2**32, 10_000):
        key = struct.pack("<Q", length) + b"a"
        yield case(f"key-of-{length}", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + bytes(64))
        yield case(f"text-of-{length}", gguf([("a", value(8, struct.pack("<Q", length) + b"x"))]))
        yield case(f"name-of-{length}", b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + key + bytes(64))
    for length in (1024, 1025):
        yield case(f"key-{length}", gguf([("k" * length, value(0, b"\1"))], [tensor()]), length <= 1024)
        yield case(f"name-{length}", gguf(tensors=[tensor("n" * length)]), length <= 1024)
    yield case("key-twice", gguf([("a", value(0, b"\1")), ("a", value(0, b"\2"))]))
    yield case("name-twice", gguf(tensors=[tensor(), tensor(offset=32)]))
    yield case("bad-utf8", gguf([(b"\xff", value(8, text_of(b"\xfe")))], [tensor(b"\xff\xfe")]), True)
    for kind in (13, 255, 2**31, 2**32 - 1):
        yield case(f"value-of-type-{kind}", gguf([("a", value(kind, bytes(8)))]))
        yield case(f"array-of-type-{kind}", gguf([("a", array(kind, 1, bytes(8)))]))
    for kind in range(13):
        whole = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text_of("a") + value(kind, b"")
        yield case(f"value-{kind}-cut", whole)
    yield case("array-of-arrays", gguf([("a", array(9, 1, array(0, 1, b"\1")[4:]))]))
    for kind, size in ((0, 1), (7, 1), (3, 2), (5, 4), (6, 4), (10, 8), (12, 8), (8, 8)):
        for count in (2**61, 2**63, 2**64 - 1, 2**64 // size + 1 if size > 1 else 2**40):
            yield case(f"array-{kind}-of-{count}", gguf([("a", array(kind, count % 2**64))]))
    yield case("bool-2", gguf([("a", value(7, b"\2"))], [tensor()]), True)
    for alignment in (0, 1, 2, 3, 8, 33, 2**20, 2**21, 2**31):
        right = alignment in (1, 2, 8, 2**20)
        data = gguf(
            [("general.alignment", value(4, struct.pack("<I", alignment)))], [tensor()], alignment=alignment or 1
        )
        yield case(f"alignment-{alignment}", data, right)
    for raw in (
        value(8, text_of("32")),
        value(6, struct.pack("<f", 32)),
        value(5, struct.pack("<i", -32)),
        array(4, 0),
    ):
        yield case(f"alignment-{raw[:4].hex()}", gguf([("general.alignment", raw)], [tensor()]))
    for rank in (5, 9, 2**31, 2**32 - 1):
        yield case(f"rank-{rank}", gguf(tensors=[tensor(rank=rank)]))
    yield case("rank-0", gguf(tensors=[tensor(shape=())]), True)
    yield case("rank-4", gguf(tensors=[tensor(shape=(2, 2, 2, 2))]), True)
    for shape in (
        *((-1,), (2**63,), (2**40 + 1,), (2**32, 2**32), (2**40, 2**24), (2**31, 2**31, 4), (2**62, 4), (2**33, 2**31)),
        *((2**56,), (17,), (2**40, 2**40, 2**40, 2**40), (1, 2**64 - 1), (0, 2**63)),
    ):
        yield case(f"shape-{shape}", gguf(tensors=[tensor(shape=shape)]))
    for shape in ((0,), (0, 2**40), (16,)):
        yield case(f"shape-{shape}", gguf(tensors=[tensor(shape=shape)]), True)
    # Of every type a row, a row and a half, and one that is cut.
    blocks = {
        0: (1, 4),
        1: (1, 2),
        30: (1, 2),
        24: (1, 1),
        28: (1, 8),
        2: (32, 18),
        3: (32, 20),
        6: (32, 22),
        7: (32, 24),
    }
    blocks |= {8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18)}
    blocks |= {23: (256, 136), 34: (256, 54), 39: (32, 17)}
    for kind, (block, size) in blocks.items():
        yield case(f"type-{kind}", gguf(tensors=[tensor(shape=(block,), kind=kind)], data=size), True)
        yield case(f"type-{kind}-cut", gguf(tensors=[tensor(shape=(block,), kind=kind)], data=size - 1))
        if block > 1:
            yield case(f"type-{kind}-half", gguf(tensors=[tensor(shape=(block // 2,), kind=kind)], data=size))
    for kind in (4, 5, 31, 32, 33, 36, 37, 38, 43, 100, 151, 2**31, 2**32 - 1):
        yield case(f"type-{kind}", gguf(tensors=[tensor(kind=kind)]))
    for offset in (1, 16, 31, 33, 64, 96, 2**63, 2**64 - 32, 2**64 - 1):
        yield case(f"offset-{offset}", gguf(tensors=[tensor(offset=offset)]))
    yield case("offset-32", gguf(tensors=[tensor(offset=32)]), True)
    yield case("overlap", gguf(tensors=[tensor("a", (16,)), tensor("b", (4,), offset=32)]))
    yield case("the-same-place", gguf(tensors=[tensor("a"), tensor("b")]))
    yield case("in-reverse", gguf(tensors=[tensor("a", offset=32), tensor("b")]), True)
    shapes = {"long": array(5, 9, bytes(36)), "none": array(5, 0), "negative": array(5, 1, struct.pack("<i", -4))}
    shapes |= {"other": array(5, 1, struct.pack("<i", 5)), "nan": array(12, 1, struct.pack("<d", math.nan))}
    shapes |= {"huge": array(12, 2, struct.pack("<dd", 1e300, 1e300)), "texts": array(8, 1, text_of("4"))}
    for name, raw in shapes.items():
        yield case(f"orig-shape-{name}", gguf([("comfy.gguf.orig_shape.a", raw)], [tensor()]), True)
    texts = array(8, 2_000_000, bytes(16_000_000))
    yield case("millions-of-texts", gguf([("a", texts)], [tensor()]), True)
    whole = gguf([("a", value(8, text_of("x"))), ("b", array(4, 2, bytes(8)))], [tensor(shape=(2, 2))], 16)
    for cut in range(0, len(whole) - 16, 7):
        yield case(f"cut-{cut}", whole[:cut])


# --- what is neither ---


def others() -> Iterator[Case]:
    for name, data in {
        "empty": b"", "one-byte": b"\0", "zeros": bytes(1000), "pickle": b"\x80\x02}q\0.", "zip": b"PK\3\4" + bytes(100),
        "html": b"<!DOCTYPE html><html>", "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "text": b"hello", "png": b"\x89PNG\r\n\x1a\n" + bytes(50), "gguf-of-another-case": b"gguf" + bytes(100),
        "elf": b"\x7fELF" + bytes(100), "json": b'{"a": 1}', "random": bytes((i * 97 + 13) % 256 for i in range(5000)),
    }.items():  # fmt: skip
        yield Case("safetensors", f"is-{name}", data)


# --- vocabularies ---

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def piece(text: str | bytes, kind: int = 1, score: float = -1) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return field(1, field(1, raw) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(kind))


FIRST = [piece("<unk>", 2), piece("<s>", 3), piece("<bos>", 3), *(piece(b, 6) for b in BYTES), piece("\u2581", 4)]
TRAINER = b"\x18\x02" + b"\x98\x02\x01" + b"\xf2\x02\x05<bos>"  # BPE; byte fallback; bos_piece
NORMALIZER = field(3, field(1, b"identity") + b"\x18\x00\x20\x00\x28\x01")


def sentencepieces() -> Iterator[Case]:
    def model(name: str, pieces: list[bytes], trainer: bytes = TRAINER, normalizer: bytes = NORMALIZER, accepted=False):
        data = b"".join(pieces) + field(2, trainer) + normalizer
        return Case("sentencepiece", name, data, accepted)

    yield model("whole", FIRST, accepted=True)
    yield Case("sentencepiece", "empty-message", b"\n\0")
    yield Case("sentencepiece", "text", b"not a model")
    yield Case("sentencepiece", "length-wraps", b"\n" + b"\xff" * 9 + b"\x01" + b"x")
    yield Case("sentencepiece", "deep", b"\n" * 10_000)
    yield Case("sentencepiece", "groups", b"\x0b" * 100_000)
    yield model("no-pieces", [])
    yield model("unigram", FIRST, b"\x18\x01\x98\x02\x01")
    yield model("no-fallback", FIRST, b"\x18\x02")
    yield model("a-prefix", FIRST, normalizer=field(3, b"\x18\x01\x20\x00\x28\x01"))
    yield model("normalised", FIRST, normalizer=field(3, field(2, b"xx") + b"\x18\x00\x20\x00\x28\x01"))
    yield model("without-a-byte", [p for i, p in enumerate(FIRST) if i != 77])
    yield model("two-unknown", [*FIRST, piece("<unk2>", 2)])
    yield model("no-unknown", FIRST[1:])
    yield model("no-bos", [FIRST[0], *FIRST[3:]])
    yield Case("sentencepiece", "many-empty-pieces", b"\n\0" * 2_000_000)
    yield Case("sentencepiece", "many-empty-lists", field(2, b"\xfa\x01\0" * 2_000_000))
    yield model("twice", [*FIRST, piece("a"), piece("a")])
    yield model("empty-piece", [*FIRST, piece("")])
    yield model("bad-utf8", [*FIRST, piece(b"\xff\xfe")])
    for score in (math.nan, math.inf, -math.inf):
        yield model(f"score-{score}", [*FIRST, piece("a", score=score)])
    yield model("byte-of-no-byte", [*FIRST, piece("xy", 6)])
    yield model("type-9", [*FIRST, piece("xy", 9)], accepted=True)  # an unknown number of an enumeration is the default
    yield model("many-blanks", [*FIRST, *(piece("\u2581" * n, 4) for n in range(2, 100))])
    yield model("a-long-piece", [*FIRST, piece("a" * 1_000_000)], accepted=True)
    whole = b"".join(FIRST) + field(2, TRAINER) + NORMALIZER
    for cut in range(10, len(whole), len(whole) // 12):
        yield Case("sentencepiece", f"cut-{cut}", whole[:cut])


def tokenizer_json(**changes: Any) -> dict[str, Any]:
    vocab = {text: i for i, text in enumerate(["<unk>", "<bos>", *BYTES, "a", "b", "ab", "\u2581"])}
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "byte_fallback": True, "vocab": vocab}
    model |= {"ignore_merges": False, "merges": [["a", "b"]], **changes.pop("model", {})}
    told = {"added_tokens": [{"id": 1, "content": "<bos>"}], "pre_tokenizer": None, "model": model}
    told["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    return told | changes


def tokenizer_jsons() -> Iterator[Case]:
    def case(name: str, told: Any, accepted: bool = False) -> Case:
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        return Case("tokenizer_json", name, data, accepted)

    vocab = tokenizer_json()["model"]["vocab"]
    yield case("whole", tokenizer_json(), True)
    for name, told in {
        "cut": b'{"model":',
        "list": b"[]",
        "empty": b"{}",
        "number": b"1",
        "deep": b"[" * 100_000,
    }.items():
        yield case(name, told)
    for key, values in {
        "vocab": ({}, [], 1, None, {"a": -1}, {"a": 2**63}, {"a": 1.5}, {**vocab, "a": 0}, {**vocab, "": 1000}),
        "merges": ({}, 1, ["a"], ["a b c"], [["a"]], [["a", "b", "c"]], [[]], [["a", "x"]], [1], ["b a"], [["", "a"]]),
        "type": ("Unigram", None, 1), "dropout": (0.1,), "byte_fallback": (False, None), "unk_token": ("x", 1, None),
    }.items():  # fmt: skip
        for number, wrong in enumerate(values):
            yield case(f"{key}-{number}", tokenizer_json(model={key: wrong}))
    for number, added in enumerate(({}, 1, [1], [{}], [{"id": -1, "content": "x"}], [{"id": 2**40, "content": "x"}],
                                    [{"id": 1, "content": ""}], [{"id": 5, "content": "a"}],
                                    [{"id": 1, "content": "<bos>", "lstrip": True}])):  # fmt: skip
        yield case(f"added-{number}", tokenizer_json(added_tokens=added), added == {})
    yield case("many-values", b'{"x":[' + b",".join([b"[]"] * 700_000) + b"]}")
    yield case("many-tokens", b'{"model":{"vocab":{' + b",".join(b'"%d":%d' % (i, i) for i in range(600_000)) + b"}}}")
    yield case("many-merges", b'{"model":{"merges":[' + b",".join([b'"a b"'] * 1_200_000) + b"]}}")
    yield case("many-empty-merges", b'{"model":{"merges":[' + b",".join([b'""'] * 1_200_000) + b"]}}")


# --- LoRAs and imatrices ---


def stored(tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    from safetensors.numpy import save

    return save(tensors, metadata)


def loras() -> Iterator[Case]:
    name = "transformer_blocks.0.attn1.to_q"
    down, up = np.ones((2, 64), np.float32), np.ones((64, 2), np.float32)  # of the tiny model: 64 wide
    good = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}

    def case(what: str, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None, accepted=False) -> Case:
        return Case("lora", what, stored(tensors, metadata), accepted)

    yield case("without-up", {f"{name}.lora_A.weight": down})
    yield case("without-down", {f"{name}.lora_B.weight": up})
    yield case("ranks", {**good, f"{name}.lora_B.weight": np.ones((64, 3), np.float32)})
    yield case("rank-0", {f"{name}.lora_A.weight": down[:0], f"{name}.lora_B.weight": up[:, :0]})
    yield case("vectors", {f"{name}.lora_A.weight": down[0], f"{name}.lora_B.weight": up[0]})
    yield case("widths", {f"{name}.lora_A.weight": down[:, :63], f"{name}.lora_B.weight": up})
    yield case("whole-numbers", {key: value.astype(np.int64) for key, value in good.items()})
    yield case("two-adapters", {f"{name}.lora_A.x.weight": down, f"{name}.lora_B.y.weight": up})
    yield case("two-spellings", {**good, f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up})
    for alpha in (np.float32([np.nan]), np.float32([np.inf]), np.float32([1, 2]), np.zeros(0, np.float32)):
        yield case(f"alpha-{alpha.tolist()}", {**good, f"{name}.alpha": alpha})
    for text in ("{", "[]", "1", '{"lora_alpha":"x"}', '{"lora_alpha":[]}', '{"use_rslora":3}', '{"use_dora":true}',
                 '{"alpha_pattern":[]}', '{"alpha_pattern":{"(":1}}', '{"alpha_pattern":{"attn1.to_q":"x"}}',
                 '{"peft_type":"LOHA"}', '{"fan_in_fan_out":true}', '{"lora_alpha":1e999}'):  # fmt: skip
        yield case(f"metadata-{text}", good, {"lora_adapter_metadata": text})
    for tail in (".dora_scale", ".hada_w1_a", ".lokr_w1", ".oft_blocks", ".lora_mid.weight", ".set_weight", ".weight"):
        yield case(f"foreign{tail}", {**good, f"{name}{tail}": down})
    yield case("a-diff-of-nothing", {f"{name}x.diff": down, **good}, accepted=True)
    yield case("a-diff-of-another-shape", {f"{name}.diff": down, **good})


def imatrices() -> Iterator[Case]:
    def dat(
        entries: int,
        name: bytes = b"blk",
        length: int | None = None,
        calls: int = 1,
        count: int | None = None,
        values=(1.0,),
    ):
        head = struct.pack("<ii", entries, len(name) if length is None else length)
        raw = np.array(values, np.float32).tobytes()
        return head + name + struct.pack("<ii", calls, len(values) if count is None else count) + raw

    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("imatrix", name, data, accepted)

    whole = dat(1)
    for entries in (0, -1, 2, 2**20, 2**20 + 1, 2**31 - 1, -(2**31)):
        yield case(f"{entries}-entries", dat(entries))
    for length in (0, -1, 1025, 2**31 - 1):
        yield case(f"name-of-{length}", dat(1, length=length))
    for count in (0, -1, 2, 2**24, 2**24 + 1, 2**31 - 1):
        yield case(f"{count}-values", dat(1, count=count))
    yield case("negative-calls", dat(1, calls=-1))
    for wrong in (-1.0, math.nan, math.inf):
        yield case(f"holds-{wrong}", dat(1, values=(wrong,)))
    for cut in range(0, len(whole), 3):
        yield case(f"cut-{cut}", whole[:cut])
    yield case("gguf-without-sums", gguf(tensors=[tensor()]))
    yield case("gguf-without-counts", gguf(tensors=[tensor("a.in_sum2")]))
    yield case("gguf-of-empty-counts", gguf(tensors=[tensor("a.in_sum2"), tensor("a.counts", (0,), offset=32)]))
    yield case("gguf-in-bits", gguf(tensors=[tensor("a.in_sum2", kind=26), tensor("a.counts", offset=32)]))


# --- what sdltx writes itself ---


def kept_values() -> Iterator[Case]:
    latents = {"video": np.zeros((4, 1, 2, 2), np.float32), "audio": np.zeros((8, 3, 16), np.float32)}
    good = {"frame_rate": 24.0, "settings": {}}

    def case(name: str, tensors: dict[str, np.ndarray], told: Any, accepted: bool = False) -> Case:
        text = told if isinstance(told, str) else json.dumps(told)
        return Case("latents", name, stored(tensors, {"sdltx.latents": text}), accepted)

    yield case("whole", latents, good, True)
    for text in ("", "{", "[]", "1", "null", "[" * 10_000, '{"frame_rate":24}', '{"settings":{}}'):
        yield case(f"told-{text[:20]}", latents, text)
    for rate in (0, -1, 1e9, "24", None, [], True, math.nan, math.inf):
        yield case(f"rate-{rate}", latents, {**good, "frame_rate": rate}, rate == 0)
    for settings in (1, "x", [1], None):
        yield case(f"settings-{settings}", latents, {**good, "settings": settings})
    yield case("no-tensors", {"other": np.zeros(1, np.float32)}, good)
    for name, shape in (
        ("video", (4,)),
        ("video", (4, 1, 2)),
        ("video", (0, 1, 2, 2)),
        ("audio", (8, 3)),
        ("audio", (0, 0, 0)),
    ):
        empty = len(shape) == latents[name].ndim  # of sound alone; the decoders refuse what is neither
        yield case(f"{name}-{shape}", {**latents, name: np.zeros(shape, np.float32)}, good, empty)
    for kind in (np.int64, np.uint8):
        yield case(f"video-{kind.__name__}", {**latents, "video": latents["video"].astype(kind)}, good, True)
    for wrong in (math.nan, math.inf):
        yield case(f"video-of-{wrong}", {**latents, "video": latents["video"] + np.float32(wrong)}, good, True)
    yield Case("latents", "no-mark", stored(latents))
    whole = stored(latents, {"sdltx.latents": json.dumps(good)})
    for cut in (0, 4, 8, 9, 100, len(whole) - 1):
        yield Case("latents", f"cut-{cut}", whole[:cut])


# --- pictures and sound ---


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 100).convert("RGB").save(out, kind)
    return out.getvalue()


def png_of(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """A PNG that says it is of a size, with next to no pixels."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def pictures() -> Iterator[Case]:
    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("picture", name, data, accepted)

    for width, height in (
        (0, 1),
        (1, 0),
        (2**31 - 1, 1),
        (2**31, 1),
        (2**32 - 1, 2**32 - 1),
        (65_536, 65_536),
        (30_000, 30_000),
    ):
        yield case(f"png-{width}x{height}", png_of(width, height))
    for depth, kind in ((0, 2), (3, 2), (8, 1), (8, 5), (8, 255), (16, 3)):
        yield case(f"png-depth-{depth}-kind-{kind}", png_of(8, 8, depth, kind))
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = picture(kind)
        for cut in (1, 8, 20, len(whole) // 2):
            yield case(f"{kind}-cut-{cut}", whole[:cut])
        yield case(f"{kind}-ends-early", whole[: len(whole) * 3 // 4])
    for name, data in {"empty": b"", "text": b"hello", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
                       "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "zip": b"PK\3\4" + bytes(99),
                       "gif-of-nothing": b"GIF89a" + bytes(20), "tiff-loop": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
                       "bmp-huge": b"BM" + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
                       "jpeg-of-nothing": b"\xff\xd8\xff\xd9", "ico": b"\0\0\1\0\xff\xff" + bytes(40),
                       "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 300_000, 300_000, 8, 3) + bytes(20)}.items():  # fmt: skip
        yield case(name, data)


def wav(
    rate: int = 48_000,
    channels: int = 2,
    bits: int = 16,
    size: int | None = None,
    data: bytes = bytes(64),
    form: int = 1,
):
    align = channels * bits // 8
    head = struct.pack("<IHHIIHH", 16, form, channels, rate, rate * align % 2**32, align % 2**16, bits)
    body = b"WAVEfmt " + head + b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def sounds() -> Iterator[Case]:
    def case(name: str, data: bytes, accepted: bool = False) -> Case:
        return Case("sound", name, data, accepted)

    yield case("whole", wav(), True)
    yield case("claims-4-gb", wav(size=2**32 - 1), True)  # as streams are written; the file's end is its end
    yield case("no-samples", wav(data=b""))
    for rate in (0, 2**31, 2**32 - 1):
        yield case(f"rate-{rate}", wav(rate=rate))
    for channels in (0, 65_535):
        yield case(f"channels-{channels}", wav(channels=channels))
    for bits in (0, 1, 7, 65_535):
        yield case(f"bits-{bits}", wav(bits=bits), None)
    yield case("format-9999", wav(form=9999))
    for cut in (0, 4, 12, 20, 36, 44):
        yield case(f"cut-{cut}", wav()[:cut])
    for name, data in {"text": b"hello", "playlist": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "picture": picture(),
                       "concat": b"ffconcat version 1.0\nfile /etc/passwd\n", "mp3-of-nothing": b"\xff\xfb\x90\x64" + bytes(10),
                       "ogg-of-nothing": b"OggS" + bytes(30), "flac-of-nothing": b"fLaC" + bytes(60),
                       "midi": b"MThd" + bytes(30), "mp4-of-nothing": b"\0\0\0\x18ftypisom" + bytes(12)}.items():  # fmt: skip
        yield case(name, data)


# --- JSON for people ---


def requests() -> Iterator[Case]:
    for told in (
        *("", "{", "[]", "1", "null", '"x"', "[" * 100_000, '{"a":' * 1000, '{"width":"x"}', '{"width":1e999}'),
        *('{"nonsense":1}', '{"width":64.5}', '{"width":-1}', '{"width":0}', '{"width":18446744073709551616}'),
        *('{"prompt":1}', '{"prompt":null,"images":1}', '{"images":[1]}', '{"images":[{}]}', '{"images":[{"path":1}]}'),
        *(
            '{"images":[{"path":"x","frame":0.5}]}',
            '{"sigmas":[]}',
            '{"sigmas":["x"]}',
            '{"sigmas":[[1]]}',
            '{"loras":[1]}',
        ),
        *('{"loras":[["x"]]}', '{"loras":[["x","y"]]}', '{"tiling":[1]}', '{"tiling":[1,2,3,4,5]}', '{"seed":1.5}'),
        *('{"sound":1}', '{"sound":{"path":1}}', '{"film":[]}', '{"references":{}}', '{"references":[{"strength":1}]}'),
        *('{"duration":"x"}', '{"duration":"-1s"}', '{"recipe":"x"}', '{"sampler":1}', '{"num_frames":true}'),
        *('{"guidance_scale":NaN}', '{"guidance_scale":Infinity}', '{"prompt":"\\ud800"}', '{"prompt":"a\\u0000b"}'),
        *('{"enhance":"yes"}', '{"noise":true}', '{"initial":1}', '{"stg_blocks":[1.5]}', '{"stg_blocks":[-1]}'),
    ):
        # Halves of characters and NULs are taken or refused, as prompts are.
        odd = "ud800" in told or "u0000" in told
        yield Case("request", told[:60], told.encode(), None if odd else False)


MAKERS: dict[str, tuple[Callable[[], Iterator[Case]], ...]] = {
    "safetensors": (headers, entries, places, many, others),
    "gguf": (ggufs,),
    "sentencepiece": (sentencepieces,),
    "tokenizer_json": (tokenizer_jsons,),
    "lora": (loras,),
    "imatrix": (imatrices,),
    "latents": (kept_values,),
    "picture": (pictures,),
    "sound": (sounds,),
    "request": (requests,),
}


def cases(kind: str) -> list[Case]:
    """All of a kind."""
    return [case for maker in MAKERS[kind] for case in maker()]


def write(case: Case, folder: Path) -> Path:
    """Writes a case under a name that its kind has."""
    suffix = {"safetensors": "safetensors", "gguf": "gguf", "sentencepiece": "model", "tokenizer_json": "json", "lora": "safetensors",
              "imatrix": "dat", "latents": "latents.safetensors", "picture": "png", "sound": "wav", "request": "json"}[case.kind]  # fmt: skip
    path = folder / f"x.{suffix}"
    path.write_bytes(case.data)
    return path
