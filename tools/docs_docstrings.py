"""An extension of griffe: our docstrings, whose arguments are lines ``name: text``, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ARGUMENT = re.compile(r"^((?:\w+, )*\w+): (?=\S)")
_ROLE = re.compile(r":(?:meth|class|func|attr|data|mod):`~?([^`]+)`")


def as_markdown(text: str) -> str:
    """Returns a docstring with a list of its arguments, and names in the place of roles."""
    lines, listed = [], False
    for line in _ROLE.sub(r"`\1`", text).replace("``", "`").splitlines():
        if found := _ARGUMENT.match(line):
            names = ", ".join(f"`{name}`" for name in found[1].split(", "))
            lines += [] if listed else [""]
            lines.append(f"- {names}: {line[found.end() :]}")
            listed = True
        else:
            listed = listed and (line.startswith("    ") or not line.strip())
            lines.append(line)
    return "\n".join(lines)


class Docstrings(griffe.Extension):
    """Rewrites every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for everything that has been read."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
