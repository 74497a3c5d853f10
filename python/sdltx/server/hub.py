"""Who hears of which video. A reader that is slow misses what was in between, and nothing piles up for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

_MOST_KEPT = 1000


class Reader:
    """One connection: the videos that changed since it was told last."""

    def __init__(self, video: str | None) -> None:
        """video: the one that it hears of; None: all."""
        self.video = video
        self._changed: dict[str, None] = {}
        self._something = asyncio.Event()
        self._closed = False

    def note(self, video: str) -> None:
        """One changed."""
        if self.video in (None, video):
            self._changed[video] = None
            self._something.set()

    def close(self) -> None:
        """There is nothing more to hear."""
        self._closed = True
        self._something.set()

    async def changes(self) -> AsyncIterator[str]:
        """Gives videos as they change, until it is closed."""
        while True:
            await self._something.wait()
            if self._closed:
                return
            self._something.clear()
            changed, self._changed = self._changed, {}
            for video in changed:
                yield video


class Hub:
    """All readers."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()
        self._told: dict[str, str] = {}

    def told(self, video: str, tell: Callable[[], str]) -> str:
        """Returns what readers are told of a video, which is put together once for all of them."""
        if video not in self._told:
            if len(self._told) >= _MOST_KEPT:
                self._told.clear()
            self._told[video] = tell()
        return self._told[video]

    def __len__(self) -> int:
        return len(self._readers)

    def note(self, video: str) -> None:
        """Tells who hears of it that a video changed."""
        self._told.pop(video, None)
        for reader in self._readers:
            reader.note(video)

    def note_place(self, video: str) -> None:
        """Tells who hears of this video alone that its place in the queue changed; others count themselves."""
        self._told.pop(video, None)
        for reader in self._readers:
            if reader.video == video:
                reader.note(video)

    def close(self) -> None:
        """Ends the streams of all readers."""
        for reader in self._readers:
            reader.close()

    def join(self, video: str | None) -> Reader:
        """Returns one that hears until it leaves."""
        reader = Reader(video)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """It hears no more."""
        self._readers.discard(reader)
