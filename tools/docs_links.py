"""A hook of mkdocs: links that leave the documentation, which work in the repository, become names of files."""

from __future__ import annotations

import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page without links that lead out of the site."""

    def named(found: re.Match[str]) -> str:
        return found[1] if found[1].strip("`") == found[2] else f"{found[1]} (`{found[2]}`)"

    return _LINK.sub(named, markdown)
