"""The tree keeps its shape: includes run one way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
# Folders, and files that lie in none; what is listed later knows what is listed before.
LAYERS = ["sdltx", "base", "ggml", "gemma", "gemma3 gemma4 ltxv", "model", "clip", "api"]
# Within folders where the order is not plain: a file includes those before it only.
INSIDE = {
    "clip": [
        "options",
        "request",
        "material",
        "extension",
        "settings",
        "recipes",
        "plan",
        "run",
        "composing",
        "work",
        "stage",
        "step_memory",
        "pipeline",
    ],
    "api": ["capi_values", "capi_run", "bindings_gil", "bindings_guard", "bindings"],
}
WITHOUT_GGML = [
    "model/presets",
    "clip/options",
    "clip/settings",
    "clip/recipes",
    "clip/request",
    "clip/material",
    "clip/extension",
    "clip/composing",
    "clip/plan",
    "clip/run",
    "clip/step_memory",
    "clip/work",
    "ltxv/conditioning",
    "ltxv/sample_state",
    "ltxv/steppers",
    "ltxv/schedule",
    "ltxv/geometry",
    "ltxv/noise",
    "ltxv/tiling",
    "ltxv/rope",
    "ltxv/version",
    "gemma/tokenizer",
    "gemma/writing",
    "gemma3/sentencepiece_model",
    "gemma4/bpe",
]


def layer_of(path: str) -> int:
    room = path.split("/")[0].split(".")[0]
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms.split())


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
    path = str(file.relative_to(CSRC))
    for name in own_includes(file):
        assert layer_of(name) < layer_of(path) or Path(name).parts[0] == Path(path).parts[0], (
            f"{path} must not include {name}"
        )


@pytest.mark.parametrize("folder", sorted(INSIDE))
def test_headers_of_a_folder_run_one_way(folder):
    order = INSIDE[folder]
    for file in (CSRC / folder).glob("*.h"):
        assert file.stem in order, f"{file.name} has no place"
        for name in own_includes(file):
            if Path(name).parts[0] == folder and name.endswith(".h"):
                assert order.index(Path(name).stem) < order.index(file.stem), f"{file.name} must not include {name}"


PYTHON = CSRC.parent / "python" / "sdltx"
PYTHON_LAYERS = {
    "_core": 0,
    "_options": 0.5,
    "model_sets": 2,
    "library": 3,
    "environment": 2,
    "records": 2,
    "progress": 3,
    "_lazy": 0,
    "_core_missing": 0,
    "_core_tests": 0,
    "hub": 4,
    "errors": 1,
    "_demo": 2,
    "_files": 2,
    "_arguments": 2,
    "sound": 3,
    "_pictures": 3,
    "settings": 3,
    "values": 5,
    "_readers": 3,
    "material": 6,
    "_open_model": 8,
    "diffusers_style": 8.5,
    "display": 4,
    "_encoders": 3,
    "options": 3,
    "media": 4,
    "conversion": 5,
    "doctor": 5,
    "images": 4,
    "inspection": 5,
    "request": 7,
    "jobs": 8,
    "pipeline": 9,
    "contexts": 10,
    "preview": 10,
    "__init__": 10,
    "writing": 10.5,
    "server": 11,
    "ray_worker": 11,
    "cli": 12,
    "__main__": 13,
}


def imported(file: Path) -> set[str]:
    """Modules of the package that ``file`` imports when it is imported, or for type checkers."""
    names = set()
    tree = ast.parse(file.read_text())
    for_types = [node for outer in tree.body if isinstance(outer, ast.If) for node in outer.body]
    for node in [*tree.body, *for_types]:
        if isinstance(node, ast.ImportFrom):
            depth = len(file.relative_to(PYTHON).parts)
            if node.level and node.level < depth:
                continue  # within a folder
            module = (node.module or "").removeprefix("sdltx").strip(".")
            if node.level or (node.module or "").startswith("sdltx"):
                names |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {"__init__" for alias in node.names if alias.name.split(".")[0] == "sdltx"}
    return {name if name in PYTHON_LAYERS else "__init__" for name in names}


@pytest.mark.parametrize("file", sorted(PYTHON.rglob("*.py")), ids=lambda f: str(f.relative_to(PYTHON)))
def test_python_imports_run_one_way(file):
    own = file.relative_to(PYTHON).parts[0].removesuffix(".py")
    for name in imported(file):
        assert PYTHON_LAYERS[name] < PYTHON_LAYERS[own], f"{file.name} must not import {name}"


def test_what_is_imported_later_runs_one_way_too():
    """Inside of functions, where a circle does no harm when modules are loaded; those that there are have a reason."""
    upward = set()
    for file in PYTHON.rglob("*.py"):
        own = file.relative_to(PYTHON).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and len(file.relative_to(PYTHON).parts) == 1:
                named = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                upward |= {(own, name) for name in named if PYTHON_LAYERS.get(name, 0) >= PYTHON_LAYERS[own]}
    assert upward == set()


@pytest.mark.parametrize("folder", [CSRC, PYTHON])
def test_no_file_is_long(folder):
    for file in [file for kind in ("*.h", "*.cpp", "*.py") for file in folder.rglob(kind)]:
        assert len(file.read_text().splitlines()) <= 600, file.name


@pytest.mark.parametrize("stem", WITHOUT_GGML)
def test_plain_arithmetic_knows_no_ggml(stem):
    files = list(CSRC.glob(f"{stem}.*"))
    assert files
    for file in files:
        assert not re.search(r'#include ["<]ggml|\bggml_', file.read_text()), f"{file.name} uses ggml"


def test_every_source_is_listed_in_cmake():
    listed = (CSRC / "CMakeLists.txt").read_text().split()
    for file in CSRC.rglob("*.cpp"):
        name = str(file.relative_to(CSRC))
        assert name in (word.strip("()") for word in listed), f"{name} is not built"


def types_of(text: str) -> list[str]:
    """The types that a source file defines where other files see them, or their functions, by their full names."""
    found: list[str] = []
    inside: list[str] = []
    for line in text.splitlines():
        if opened := re.match(r"namespace ?([\w:]*) ?\{$", line):
            inside.append(opened[1])
        elif line.startswith("}  // namespace"):
            inside.pop()
        elif "" not in inside and (
            type_ := re.match(r"(?:struct|class|union|enum class) (?:SDLTX_EXPORT )?([\w:]+)[^;]*\{", line)
        ):
            found.append("::".join([*inside, type_[1]]))
    assert not inside
    return found


def test_no_two_types_have_one_name():
    """The linker takes the functions of one for the other, as it cannot tell them apart."""
    assert types_of("namespace a {\nstruct B {\n};\nnamespace {\nstruct C {\n}  // namespace\n}  // namespace a\n") == [
        "a::B"
    ]
    files: dict[str, list[str]] = {}
    for path in sorted(CSRC.rglob("*.h")) + sorted(CSRC.rglob("*.cpp")):
        for name in types_of(path.read_text()):
            files.setdefault(name, []).append(path.name)
    assert len(files) > 100
    assert {name: where for name, where in files.items() if len(where) > 1} == {}
