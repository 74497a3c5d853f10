"""What a clip says of how it was made, when another program wrote it: taken, or refused in one line."""

from __future__ import annotations

import json

import pytest

import sdltx
from sdltx import media
from sdltx.cli import _parser, repeat
from sdltx.options import ROWS

NAMES = (
    "images",
    "sound",
    "film",
    "references",
    "upscalers",
    "tiling",
    "initial",
    "noise",
    "negative_prompt",
    "prompt",
)
TOLD = ("device", "model_files", "sdltx_version", "precision")
FILE = {"path": "x.png", "sha256": 5, "mask_sha256": [], "mask": "y.png", "attention": "z.png", "attention_sha256": {}}
VALUES = (
    *(None, True, False, 0, -1, 2**63, 10**400, 0.5, float("nan"), float("inf"), "", "x.png", "a\nb\x1b[0m\u2028c"),
    *("\ud800", [], [[]], ["x.png"], [["x.png", 0.5]], [["x.png", "x"]], [None], [7], [FILE], {}, {"path": "x.png"}),
    *({"path": ["x"]}, {"path": None}, {"path": "x.png", "sha256": 7}, {"path": "x.png", "frame": "x"}, {"a\nb": 1}),
    *({"path": "x.png", "start": {}}, {"path": "x.png", "strength": []}, FILE, {"path": "x", "mask": 7}),
    {"path": "x.png", "crf": 1e300},
)


@pytest.fixture
def repeated(monkeypatch, tmp_path):
    parser = _parser()

    def call(settings: dict) -> None:
        monkeypatch.setattr(media, "read_settings", lambda path: settings)
        args = parser.parse_args(["generate", "--from", str(tmp_path / "x.mp4"), "-o", str(tmp_path / "y.mp4")])
        repeat.repeat(args)

    return call


def one_line(error: BaseException) -> bool:
    return len(str(error).splitlines()) == 1 and str(error).isprintable() and len(str(error)) < 4100


@pytest.mark.parametrize("name", (*NAMES, *TOLD, *ROWS))
def test_any_value(name, repeated):
    taken = 0
    for value in VALUES:
        try:
            repeated({"sdltx_version": "9", "prompt": "x", name: value})
            taken += 1
        except sdltx.SdltxError as error:
            assert one_line(error), f"{name} {value!r}: {str(error)!r}"
    assert taken


@pytest.mark.parametrize("name", NAMES)
def test_requests_of_any_value(name):
    for value in VALUES:
        for entry in (value, [value]):
            try:
                request = sdltx.Request.from_dict({"prompt": "x", name: entry})
                told = json.loads(json.dumps(request.to_dict()))
                assert json.loads(json.dumps(sdltx.Request.from_dict(told).to_dict())) == told
            except sdltx.SdltxError as error:
                assert one_line(error), f"{name} {entry!r}: {str(error)!r}"


@pytest.mark.parametrize(
    "strange", ["a\nb", "a\rb", "\x1b[31mred", "a\x7fb", "a\x9bb", "a\u2028b", "a\u0085b", "x" * 9000]
)
def test_errors_are_one_line(strange):
    for kind in (sdltx.SdltxError, sdltx.InvalidRequestError, sdltx.OutOfMemoryError, sdltx.BackendError):
        assert one_line(kind(f"[request] {strange}"))
    with pytest.raises(sdltx.InvalidRequestError) as raised:
        sdltx.Request.from_dict({"prompt": "x", strange: 1})
    assert one_line(raised.value)
