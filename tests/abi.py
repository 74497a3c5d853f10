"""Everything that a compiled program relies on, as text. ``python tests/abi.py`` writes it to csrc/sdltx.abi."""

from __future__ import annotations

import ctypes as c
import re
from pathlib import Path

import capi

LISTING = Path(__file__).parent.parent / "csrc" / "sdltx.abi"


def layout() -> dict[str, int]:
    """Sizes of the structs and offsets of their fields, as ctypes has them."""
    found = {}
    for name in capi.structs():
        struct = capi.structure(name)
        found[name] = c.sizeof(struct)
        found |= {f"{name}.{field}": getattr(struct, field).offset for field, _ in struct._fields_}
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


def listing() -> str:
    header, declarations, places = capi.HEADER.read_text(), capi.declarations(), layout()
    constants = re.findall(r"#define SDLTX_(\w+) ([^\s/].*)", header)
    for body in re.findall(r"\benum \{(.*?)\}", declarations, flags=re.S):
        constants += re.findall(r"SDLTX_(\w+) = (\d+)", body)
    lines = [f"abi {dict(constants)['ABI_VERSION']}"]
    lines += [f"constant SDLTX_{name} {value}" for name, value in constants if name not in ("ABI_VERSION", "API")]
    callbacks = re.findall(r"typedef ([^;{]*\(\*\w+\)[^;]*);", declarations)
    lines += [f"callback {_one_line(callback)}" for callback in callbacks]
    for name, fields in capi.structs().items():
        lines.append(f"struct {name} {places[name]}")
        for kind, field, count in fields:
            lines.append(f"  {places[f'{name}.{field}']} {kind} {field}{f'[{count}]' if count else ''}")
    lines += sorted(f"function {_one_line(text)}" for text in re.findall(r"SDLTX_API ([^;]*);", declarations))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    LISTING.write_text(listing())
