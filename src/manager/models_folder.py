"""The models folder for the manager's event loop: looked at in a thread, once at a time, and only when the last look is too old."""

import asyncio
import time

from src import logs
from src.catalog import Library, Listing

FRESH_SECONDS = 0.5  # a request may be answered by a look so old: a new model is served within a second


class ModelsFolder:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._lock = asyncio.Lock()
        self._listing = Listing({})
        self._looked_at = float("-inf")  # when the last look began, in time.monotonic() seconds

    async def recent(self) -> Listing:
        """What was there FRESH_SECONDS ago or later."""
        return await self._since(time.monotonic() - FRESH_SECONDS)

    async def current(self) -> Listing:
        """What is there now."""
        return await self._since(time.monotonic())

    async def _since(self, moment: float) -> Listing:
        if self._looked_at >= moment:
            return self._listing
        async with self._lock:
            if self._looked_at < moment:  # else another has looked while this one waited
                began = time.monotonic()
                before, self._listing = self._listing, await asyncio.to_thread(self._library.look)
                for sentence in self._listing.unreadable:
                    if sentence not in before.unreadable:
                        logs.models.warning("{}. Models that lie there are not offered", sentence)
                self._looked_at = began
        return self._listing
