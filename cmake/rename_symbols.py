"""Copies a static library and gives every name that it defines a suffix, so that two builds of it can be linked."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def defined_names(nm: str, library: Path) -> list[str]:
    """Names that other objects can use, and those (of type n) by which linkers tell that two sections are the same."""
    command = [nm, "--defined-only", "--format=posix", str(library)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    # Lines of the members' own names have no type after them.
    symbols = (line.split() for line in done.stdout.splitlines())
    return sorted({fields[0] for fields in symbols if len(fields) > 1 and (fields[1].isupper() or fields[1] in "nuvw")})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nm", required=True)
    parser.add_argument("--objcopy", required=True)
    parser.add_argument("library", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("suffix")
    args = parser.parse_args()
    names = defined_names(args.nm, args.library)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as table:
        table.writelines(f"{name} {name}{args.suffix}\n" for name in names)
        table.flush()
        subprocess.run([args.objcopy, f"--redefine-syms={table.name}", str(args.library), str(args.output)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
