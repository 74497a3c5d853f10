"""Vocabularies with something wrong: tokenizer.model and tokenizer.json."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

from broken_case import Case

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
