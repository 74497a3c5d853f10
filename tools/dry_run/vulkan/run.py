"""What a build with Vulkan asks of a GPU, found out without one: see README.md.

python run.py [--size 768x512x121] [--jobs denoise,denoise-q8_0,...] [--cards strictest,...] [--memory 24] [--squeeze]
              [--models FOLDER]

Ends with 1 if an operation is left to the CPU, if a card would refuse one, or if too little memory ends a process.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from jobs import jobs, of_child, tried  # noqa: E402

CARDS = json.loads((HERE / "cards.json").read_text())


def build(folder: Path) -> None:
    """The stand-in for the loader of Vulkan."""
    include = os.environ.get("VULKAN_INCLUDE", "/usr/include")
    command = ["c++", "-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", f"-I{include}"]
    subprocess.run([*command, str(HERE / "loader.cpp"), "-o", str(folder / "libvulkan.so.1"), "-ldl"], check=True)


def real_loader() -> str:
    """That which stands behind it; a device of any kind is needed, and Mesa's software device is enough."""
    name = ctypes.util.find_library("vulkan")
    if not name:
        sys.exit("there is no loader of Vulkan: install libvulkan1 and mesa-vulkan-drivers")
    ctypes.CDLL(name)
    return next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if name in line)


def main() -> int:
    """All jobs, or, with --child, one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="768x512x121", help="width x height x frames (default: %(default)s)")
    parser.add_argument("--jobs", help="separated by commas (default: all)")
    parser.add_argument(
        "--cards", default="strictest", help=f"separated by commas, of {', '.join(CARDS)} (default: %(default)s)"
    )
    parser.add_argument("--memory", default="24", help="its memory, GiB")
    parser.add_argument("--squeeze", action="store_true", help="run each again with less memory than it took")
    parser.add_argument("--models", type=Path, default=Path(tempfile.gettempdir(), "sdltx-bench"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    width, height, frames = (int(n) for n in args.size.split("x"))
    args.models.mkdir(parents=True, exist_ok=True)
    known = jobs(args.models, (width, height, frames), "vulkan0")
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
            "DRY_RUN_LOADER": real_loader(),
            "DRY_RUN_MEMORY_MIB": str(int(args.memory) << 10),
            "GGML_SCHED_DEBUG": "2",
            "GGML_VK_VISIBLE_DEVICES": "0",
        }
        failed = []
        for card in args.cards.split(","):
            limits = " ".join(f"{name}={value}" for name, value in CARDS[card]["limits"].items())
            print(f"{card}:", flush=True)
            failed += [
                name for name in wanted if not tried(name, {**environment, "DRY_RUN_LIMITS": limits}, args.squeeze)
            ]
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
