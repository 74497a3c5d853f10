"""Whether sdltx computes right on a device, and how fast: a JSON and a page to look at, or to send us.

python tools/device_check [--device vulkan0] [--output FOLDER] [--quick]

Needs the package and the device; device_check.pyz, made by pack.py, is the same in one file. See README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKED = HERE.is_file()  # an archive, which has everything
if not PACKED:
    ROOT = HERE.parents[1]
    sys.path[:0] = [str(ROOT / folder) for folder in ("bench", "tests", "tools/train_demo")]

from checks import Check, Run, arguments_of, child, is_well, of_child  # noqa: E402
from page import lines, page  # noqa: E402


def checks() -> dict[str, Check]:
    """By name, in the order in which they are done: what is wrong first, then what takes long."""
    import parity
    import speed

    return {
        "parity": parity.stages,
        "real head widths": parity.widths,
        "offload": parity.offload,
        "built-in model": parity.demo,
        "copies": speed.copies,
        "operations": speed.operations,
        "steps": speed.steps,
        "coding": speed.coding,
    }


def main() -> int:
    """0 if all is well, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="a name of `sdltx-cli devices` (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("device-check"), help="folder (default: %(default)s)")
    parser.add_argument("--size", help="of clips at real widths (default: 768x512x121; quick: 128x128x9)")
    parser.add_argument("--quick", action="store_true", help="small models only: for slow devices, without figures")
    parser.add_argument("--only", help="checks, separated by commas (default: all)")
    parser.add_argument("--seconds", type=float, default=480, help="all may take (default: %(default)s)")
    parser.add_argument("--models", type=Path, help="where models of real widths are kept, 10 GB (default: not kept)")
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.size = args.size or ("128x128x9" if args.quick else "768x512x121")
    size = tuple(int(n) for n in args.size.split("x") if n.isdecimal())
    if len(size) != 3 or args.size.count("x") != 2:
        parser.error(f"--size {args.size} is not WIDTHxHEIGHTxFRAMES")
    with tempfile.TemporaryDirectory(prefix="sdltx-device-check-") as scratch:
        if args.child:
            of_child(checks()[args.child], Run(args.device, args.data, args.models, size, args.quick))
            return 0
        args.models = args.models or Path(scratch, "models")
        args.data = _data(Path(scratch))
        return _all(parser, args)


def _data(scratch: Path) -> Path:
    if not PACKED:
        return ROOT / "tests" / "data"
    with zipfile.ZipFile(HERE) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith("data/")])
    return scratch / "data"


def _packed(name: str) -> bytes:
    with zipfile.ZipFile(HERE) as archive:
        return archive.read(name)


def _all(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    known = checks()
    wanted = args.only.split(",") if args.only else list(known)
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    args.models.mkdir(parents=True, exist_ok=True)
    result = _begin(args)
    print(f"{result['what']}, sdltx {result['sdltx']}", flush=True)
    end = time.monotonic() + args.seconds
    for name in wanted:
        left = end - time.monotonic()
        if left <= 0:
            part: dict[str, Any] = {"rows": [], "seconds": 0, "problem": "not begun: --seconds are over"}
        else:
            part = child(name, arguments_of(args), left)
        result["checks"][name] = part
        print(lines(name, part), flush=True)
        _write(args.output, result)
    print(f"{args.output / 'device-check.html'} and .json tell it all", flush=True)
    return 0 if all(is_well(part) for part in result["checks"].values()) else 1


def _begin(args: argparse.Namespace) -> dict[str, Any]:
    """What this is about; ``--device auto`` becomes the name of a device."""
    import sdltx
    from sdltx.doctor import device_line, diagnose

    found = diagnose()
    if PACKED and (made_for := _packed("version").decode()) != found.version:
        sys.exit(f"this is for sdltx {made_for}, and {found.version} is installed; take the one of your release")
    if args.device == "auto":
        with sdltx.load(device="auto") as pipe:
            args.device = pipe._core.device
    known = {device.name: device_line(device) for device in found.devices}
    what = known.get(args.device.lower(), args.device)
    told = {"doctor": str(found), "what": what, "quick": args.quick, "size": args.size}
    return {"sdltx": found.version, "device": args.device, **told, "checks": {}}


def _write(folder: Path, result: dict[str, Any]) -> None:
    """After each check, so that what was found out is not lost."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device-check.json").write_text(json.dumps(result, indent=1), "utf-8")
    (folder / "device-check.html").write_text(page(result), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
