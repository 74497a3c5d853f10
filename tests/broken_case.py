"""What a broken file is."""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """A broken file: what it is given as, what is wrong with it, and what it holds."""

    kind: str
    name: str
    data: bytes
    accepted: bool | None = False  # None: as the library that reads it decides
