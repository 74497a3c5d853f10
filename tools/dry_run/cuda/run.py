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
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from jobs import jobs, of_child, tried  # noqa: E402


def build(folder: Path) -> None:
    """The stand-in for libcudart and libcublas in one library of two names."""
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    runtime, products = folder / "libcudart.so.13", folder / "libcublas.so.13"
    command = ["c++", "-std=c++17", "-O1", "-shared", "-fPIC", f"-I{toolkit / 'include'}", str(HERE / "runtime.cpp")]
    linked = [f"-Wl,--version-script={HERE / 'versions.map'}", f"-Wl,-soname,{runtime.name}"]
    subprocess.run([*command, "-o", str(runtime), *linked], check=True)
    products.symlink_to(runtime.name)


def main() -> int:
    """All jobs, or, with --child, one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="768x512x121", help="width x height x frames (default: %(default)s)")
    parser.add_argument("--jobs", help="separated by commas (default: all)")
    parser.add_argument("--capability", default="86", help="compute capability of the GPU that is not there, times 10")
    parser.add_argument("--memory", default="24", help="its memory, GiB")
    parser.add_argument("--squeeze", action="store_true", help="run each again with less memory than it took")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir(), "sdltx-bench"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height, frames = (int(n) for n in args.size.split("x"))
    args.models.mkdir(parents=True, exist_ok=True)
    known = jobs(args.models, (width, height, frames), "cuda0")
    if args.child:
        of_child(known[args.child])
        return 0
    wanted = args.jobs.split(",") if args.jobs else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no job {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        environment = {
            "LD_LIBRARY_PATH": folder,
            "GGML_SCHED_DEBUG": "2",
            "DRY_RUN_CAPABILITY": args.capability,
            "DRY_RUN_MEMORY_MIB": str(int(args.memory) << 10),
        }
        failed = [name for name in wanted if not tried(name, environment, args.squeeze)]
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
