"""What a build with CUDA asks of a GPU, found out without one: see README.md.

python run.py [--size 768x512x121] [--jobs denoise,denoise-q8_0,...] [--capability 86] [--memory 24] [--squeeze]
              [--models FOLDER]

Ends with 1 if an operation is left to the CPU, if a GPU would refuse one, or if too little memory ends a process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from jobs import main  # noqa: E402


def build(folder: Path) -> None:
    """The stand-in for libcudart and libcublas in one library of two names."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    runtime, products = folder / "libcudart.so.13", folder / "libcublas.so.13"
    command = ["c++", "-std=c++17", "-O1", "-shared", "-fPIC", f"-I{toolkit / 'include'}", str(HERE / "runtime.cpp")]
    linked = [f"-Wl,--version-script={HERE / 'versions.map'}", f"-Wl,-soname,{runtime.name}"]
    subprocess.run([*command, "-o", str(runtime), *linked], check=True)
    products.symlink_to(runtime.name)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--capability", default="86", help="compute capability of the GPU that is not there, times 10")
    sys.exit(main(options, "cuda0", build, lambda args: {args.capability: {"DRY_RUN_CAPABILITY": args.capability}}))
