"""All of this folder's tool in one file that needs the package and nothing else.

python pack.py [device_check.pyz]
"""

from __future__ import annotations

import argparse
import re
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = [
    *(path for path in sorted(HERE.glob("*.py")) if path != Path(__file__)),
    ROOT / "bench" / "weights.py",
    *(ROOT / "tests" / f"{n}.py" for n in ("real_layout", "reference_runs")),
    *(
        ROOT / "tools" / "train_demo" / f"{n}.py"
        for n in ("captions", "evaluate", "measures", "scenes", "sheets", "sounds")
    ),
]
DATA = ["real/ltx-2.3-22b.json.gz", "tiny-w/*", "tiny-w/goldens/*", "tiny-a/tiny-ltx-2.3.safetensors", "tiny-a/gemma/*"]
GOLDENS = ["text", "transformer", "trajectory", "video_vae", "audio", "e2e"]


def main() -> None:
    """Writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, nargs="?", default=Path("device_check.pyz"))
    target = parser.parse_args().target
    data = ROOT / "tests" / "data"
    names = [*DATA, *(f"tiny-a/goldens/{name}.npz" for name in GOLDENS)]
    version = re.search(r"project\(sdltx VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert version
    with target.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("version", version[1])
            for module in MODULES:
                archive.write(module, module.name)
            for path in sorted(path for name in names for path in data.glob(name) if path.is_file()):
                archive.write(path, Path("data") / path.relative_to(data))
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
