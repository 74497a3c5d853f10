"""Safetensors and GGUF files with something wrong, and what is neither."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

from broken_case import Case

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
