"""Writes what spells the options of a clip out of csrc/clip/options.def.

``python tools/write_options.py`` after a build. That is python/sdltx/_options.py, for type checkers and editors, and
docs/options.md. tests/test_options.py checks that they are fresh.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from sdltx import _core
from sdltx.options import TYPES, sentences

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "Written by tools/write_options.py from csrc/clip/options.def; edit that."


def typed_dict(rows: list[dict[str, Any]]) -> str:
    """The options as keywords, with a docstring each."""
    lines = [
        f'"""{GENERATED}"""',
        "",
        "from __future__ import annotations",
        "",
        "import os",
        "from collections.abc import Iterable, Sequence",
        "from typing import TYPE_CHECKING, TypeAlias, TypedDict",
        "",
        "if TYPE_CHECKING:",
        "    from fractions import Fraction",
        "else:",
        "    from ._lazy import Fraction",
        "",
        "File: TypeAlias = str | os.PathLike[str]",
        "Lora: TypeAlias = File | tuple[File, float]",
        "",
        "",
        "class Options(TypedDict, total=False):",
        '    """Options of a clip. None, and what is not given, stands for the checkpoint\'s own default."""',
        "",
    ]
    for row in rows:
        lines.append(f"    {row['name']}: {TYPES[row['kind']]} | None")
        lines.append(fill(f'"""{sentences(row)}"""', 120, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines) + "\n"


def page(rows: list[dict[str, Any]]) -> str:
    """The page of all options."""
    lines = [
        f"<!-- {GENERATED} -->",
        "# Options of a clip",
        "",
        "What is not given is the checkpoint's own default. In Python they are keywords of `generate`, `sample`,",
        "`resolve`, `check` and `estimate`.",
    ]
    for group in dict.fromkeys(row["group"] for row in rows):
        lines += [
            "",
            f"## {group.capitalize()}",
            "",
            "| name | kind | command line | what it is |",
            "|---|---|---|---|",
        ]
        for row in rows:
            if row["group"] == group:
                flags = ", ".join(f"`{flag}`" for flag in row["flags"].split())
                lines.append(f"| `{row['name']}` | {row['kind']} | {flags} | {sentences(row)} |")
    return "\n".join(lines) + "\n"


def files() -> dict[Path, str]:
    """What is written where."""
    rows = _core.option_table()
    keywords = [row for row in rows if row["group"] not in ("prompt", "decoding")]
    return {ROOT / "python/sdltx/_options.py": typed_dict(keywords), ROOT / "docs/options.md": page(rows)}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
