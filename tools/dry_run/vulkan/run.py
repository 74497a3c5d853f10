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
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from jobs import main  # noqa: E402

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


def environments(args: argparse.Namespace) -> dict[str, dict[str, str]]:
    """By card."""

    def of(card: str) -> dict[str, str]:
        limits = " ".join(f"{name}={value}" for name, value in CARDS[card]["limits"].items())
        return {"DRY_RUN_LOADER": real_loader(), "DRY_RUN_LIMITS": limits, "GGML_VK_VISIBLE_DEVICES": "0"}

    return {card: of(card) for card in args.cards.split(",")}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--cards", default="strictest", help=f"separated by commas, of {', '.join(CARDS)} (default: %(default)s)"
    )
    sys.exit(main(options, "vulkan0", build, environments))
