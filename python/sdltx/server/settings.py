"""What a server is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What a request may ask for; what is above is refused before it costs anything."""

    queue: int = 100
    """Videos that wait or are made."""
    upload: int = 256 << 20
    """Bytes of a body with files."""
    json: int = 32 << 20
    """Bytes of a JSON body, which is held in memory as a whole."""
    request: int = 64 << 10
    """Bytes of a request without its files."""
    pixels: int = 1920 * 1088
    """Of a picture."""
    seconds: float = 30.0
    """Of a clip."""
    steps: int = 100
    """Denoising steps of a stage."""
    readers: int = 500
    """Connections that hear of events."""


@dataclass(frozen=True)
class Settings:
    """How a server runs."""

    folder: Path
    """Of its database, and of the files of videos."""
    model: tuple[str, ...] = ()
    """Files of the model; none for the built-in one."""
    load: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of :func:`sdltx.load` besides."""
    files: tuple[Path, ...] = ()
    """Folders whose LoRAs and upscalers requests may name."""
    token: str | None = None
    """What requests have to show; None: nothing."""
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})
    """Names that the server is called by; of others nothing is answered."""
    together: int = 4
    """Videos of one size whose prompts are encoded together."""
    keep_days: float | None = None
    """After how many days videos are deleted; None: never."""
    page: bool = True
    """Whether there is a page for people."""
    limits: Limits = Limits()
