"""Writes docs/cli.md from the commands' own help, and docs/c-api.md from csrc/sdltx.h.

``python tools/write_reference.py`` after a build. tests/test_docs.py checks that they are fresh.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from sdltx import cli

ROOT = Path(__file__).resolve().parent.parent
GENERATED = "<!-- Written by tools/write_reference.py; edit what it is written from. -->"


def commands() -> str:
    """The page of all commands."""
    os.environ["COLUMNS"] = "100"
    parser = cli._parser()
    lines = [GENERATED, "# Command line", "", "What `sdltx-cli COMMAND --help` prints.", ""]
    (choices,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in choices.choices.items():
        lines += [f"## {name}", "", "```text", command.format_help().strip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def header() -> str:
    """The page of the C interface: the header's sections, its comments as text and its declarations as code."""
    lines = [GENERATED, "# C", "", "From `csrc/sdltx.h`, which `sdltx-cli embed` finds for a compiler.", ""]
    text = (ROOT / "csrc" / "sdltx.h").read_text()
    body = re.search(r"^#ifdef __cplusplus\nextern \"C\" \{\n#endif\n(.*)^#ifdef __cplusplus", text, re.S | re.M)
    begin = re.match(r"/\*(.*?)\*/", text, re.S)
    if begin:
        lines += [_prose(begin[1]), ""]
    for block in re.split(r"\n{2,}", body[1] if body else text):
        if section := re.fullmatch(r"/\* --- (.*?) --- \*/", block.strip()):
            lines += [f"## {section[1].capitalize()}", ""]
            continue
        comment = re.match(r"/\*(.*?)\*/\n?", block.strip(), re.S)
        code = block.strip()[comment.end() :] if comment else block.strip()
        lines += [_prose(comment[1]), ""] if comment else []
        lines += ["```c", code, "```", ""] if code else []
    return "\n".join(lines).rstrip() + "\n"


def _prose(comment: str) -> str:
    return "\n".join(re.sub(r"^\s*\* ?", "", line).rstrip() for line in comment.strip().splitlines())


def files() -> dict[Path, str]:
    """What is written where."""
    return {ROOT / "docs/cli.md": commands(), ROOT / "docs/c-api.md": header()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
