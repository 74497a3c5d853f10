"""Whether sdltx computes right on a device, and how fast: a JSON and a page to look at, or to send us.

python tools/device_check [--device vulkan0] [--output FOLDER] [--quick]

Needs the package and the device; device_check.pyz, made by pack.py, is the same in one file. See README.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKED = HERE.is_file()  # an archive, which has everything
if not PACKED:
    ROOT = HERE.parents[1]
    sys.path[:0] = [str(ROOT / folder) for folder in ("bench", "tests", "tools/train_demo")]

from checks import Check, Row, Run, arguments_of, child, is_well, of_child  # noqa: E402
from page import lines, page  # noqa: E402


def checks() -> dict[str, Check]:
    """By name, in the order in which they are done: what is wrong first, then what takes long."""
    import parity
    import speed

    return {
        "begin": _begin,
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
    if len(size) != 3 or args.size.count("x") != 2 or min(size) < 1 or size[0] % 32 or size[1] % 32 or size[2] % 8 != 1:
        parser.error(f"--size {args.size} is not WIDTHxHEIGHTxFRAMES, multiples of 32, and of 8 and one more")
    if not 0 < args.seconds < 1e6:
        parser.error(f"--seconds {args.seconds} is not between 0 and 1000000")
    if args.child:
        of_child(checks()[args.child], Run(args.device, args.data, args.models, size, args.quick))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was written goes, and the child ends
    with tempfile.TemporaryDirectory(prefix="sdltx-device-check-") as scratch:
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
    known = [name for name in checks() if name != "begin"]
    wanted = list(known) if args.only is None else [name.strip() for name in args.only.split(",")]
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no check {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        for folder in (args.models, args.output):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"{error.filename} cannot be a folder: {error.strerror}")
    begun = child("begin", arguments_of(args), 120)
    about = begun["rows"][0] if begun["rows"] else {"problem": f"{args.device} {begun['problem']}"}
    if "problem" in about:
        parser.error(about["problem"])
    if PACKED and (made_for := _packed("version").decode()) != about["sdltx"]:
        parser.error(f"this is for sdltx {made_for}, and {about['sdltx']} is installed; take the one of your release")
    args.device = about.pop("name")
    result = {"device": args.device, **about, "quick": args.quick, "size": args.size, "checks": {}}
    print(f"{result['what']}, sdltx {result['sdltx']}", flush=True)
    end = time.monotonic() + args.seconds
    for name in wanted:
        # One that hangs leaves time for the others.
        left = end - time.monotonic()
        own = left if name == wanted[-1] else max(left / 2, min(left, 60))
        if left <= 0:
            part: dict[str, Any] = {"rows": [], "seconds": 0, "problem": "not begun: --seconds are over"}
        else:
            part = child(name, arguments_of(args), own)
        result["checks"][name] = part
        print(lines(name, part), flush=True)
        _write(args.output, result)
    print(f"{args.output / 'device-check.html'} and .json tell it all", flush=True)
    return 0 if all(is_well(part) for part in result["checks"].values()) else 1


def _begin(run: Run) -> Iterator[Row]:
    """What this is about; ``auto`` becomes the name of a device."""
    import sdltx
    from sdltx.doctor import device_line, diagnose

    found = diagnose()
    try:
        with sdltx.load(device=run.device) as pipe:
            name = pipe._core.device
    except sdltx.SdltxError as error:
        yield {"name": "", "problem": str(error)}
        return
    known = {device.name: device_line(device) for device in found.devices}
    yield {"name": name, "sdltx": found.version, "doctor": str(found), "what": known.get(name.lower(), name)}


def _write(folder: Path, result: dict[str, Any]) -> None:
    """After each check, so that what was found out is not lost."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device-check.json").write_text(json.dumps(result, indent=1), "utf-8")
    (folder / "device-check.html").write_text(page(result), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
