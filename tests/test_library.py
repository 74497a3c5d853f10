"""libsdltx.so: one core for every front end, with nothing showing that is not meant to."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdltx import _core

LIBRARY = Path(_core.__file__).parent / "libsdltx.so"


def symbols(path: Path, *options: str) -> list[str]:
    if not shutil.which("nm"):
        pytest.skip("nm is not here")
    done = subprocess.run(["nm", "-D", *options, path], capture_output=True, text=True, check=True)
    return [line.split()[-1] for line in done.stdout.splitlines()]


def test_the_extension_has_no_core_of_its_own():
    names = symbols(Path(_core.__file__), "--undefined-only")
    assert any("5sdltx8Pipeline" in name for name in names)
    assert not [name for name in names if name.startswith(("ggml_", "gguf_"))]
    assert not [name for name in symbols(Path(_core.__file__), "--defined-only") if name.startswith(("ggml_", "gguf_"))]


def test_package_can_move(tmp_path):
    """Both binaries find each other wherever they lie, and what a wheel has beside the package."""
    package = tmp_path / "sdltx"
    package.mkdir()
    for path in (LIBRARY, Path(_core.__file__)):
        shutil.copy(path, package)
    if (beside := LIBRARY.parent.with_name("sdltx.libs")).exists():
        shutil.copytree(beside, tmp_path / beside.name)
    code = (
        "import importlib.util as u, sys; spec = u.spec_from_file_location('_core', sys.argv[1]);"
        "m = u.module_from_spec(spec); spec.loader.exec_module(m);"
        "print(next(line.split()[-1] for line in open('/proc/self/maps') if 'libsdltx' in line))"
    )
    command = [sys.executable, "-I", "-c", code, str(package / Path(_core.__file__).name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(package / "libsdltx.so")


def test_library_loads_without_python():
    ctypes.CDLL(str(LIBRARY))
