"""The tree keeps its shape: includes run one way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
LAYERS = {
    "error": 0,
    "types": 1,
    "json": 1,
    "platform": 1,
    "ggml": 2,
    "gemma3": 3,
    "ltxv": 3,
    "pipeline": 4,
    "capi": 5,
    "bindings": 5,
    "bindings_ops": 6,
}
WITHOUT_GGML = [
    "ltxv/schedule",
    "ltxv/geometry",
    "ltxv/noise",
    "ltxv/tiling",
    "ltxv/rope",
    "gemma3/sentencepiece_model",
]


def layer_of(path: str) -> str:
    return path.split("/")[0].split(".")[0]


def own_includes(file: Path) -> list[str]:
    found = []
    for name in re.findall(r'#include "([^"]+)"', file.read_text()):
        beside = file.parent / name
        if beside.exists():
            found.append(str(beside.relative_to(CSRC)))
        elif (CSRC / name).exists():
            found.append(name)
    return found


@pytest.mark.parametrize("file", sorted(CSRC.rglob("*.[ch]*")), ids=lambda f: str(f.relative_to(CSRC)))
def test_includes_run_one_way(file):
    own = layer_of(str(file.relative_to(CSRC)))
    for name in own_includes(file):
        other = layer_of(name)
        assert own == other or LAYERS[other] < LAYERS[own], f"{file.name} must not include {name}"


@pytest.mark.parametrize("stem", WITHOUT_GGML)
def test_plain_arithmetic_knows_no_ggml(stem):
    files = list(CSRC.glob(f"{stem}.*"))
    assert files
    for file in files:
        assert not re.search(r'#include ["<]ggml|\bggml_', file.read_text()), f"{file.name} uses ggml"


def test_every_source_is_listed_in_cmake():
    listed = (CSRC.parent / "CMakeLists.txt").read_text()
    for file in CSRC.rglob("*.cpp"):
        assert f"csrc/{file.relative_to(CSRC)}" in listed, f"{file.name} is not built"
