"""The models folder for the manager's event loop: looked at in a thread, once at a time, and only when the last look is too old.

A look may hang for ever, as where a network share below the folder has lost its server. Then the last listing stays, and says so.
"""

import asyncio
import contextlib
import threading
import time

from src import logs
from src.catalog import Library, Listing

FRESH_SECONDS = 0.5  # a request may be answered by a look so old: a new model is served within a second
PATIENCE = 3.0  # seconds that whoever asks waits for a look, then there is the last listing: /health is to be answered
FIRST_PATIENCE = 60.0  # while there is none: a disk that sleeps takes its time
HANGS_SECONDS = 10.0  # then it is told
HANGS = (
    "A look at the models folder has not come to an end for more than 10 s: a disk or network share below it may hang. "
    "Until it answers, the models are those of the look before"
)


class ModelsFolder:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._listing = Listing({})
        self._looked_at = float("-inf")  # when the last look that has ended began, in time.monotonic() seconds
        self._look: asyncio.Future[Listing] | None = None  # the one that runs
        self._began = 0.0
        self._told = False  # that it hangs

    async def recent(self) -> Listing:
        """What was there FRESH_SECONDS ago or later; where a look hangs, what the last one found."""
        return await self._since(time.monotonic() - FRESH_SECONDS)

    async def current(self) -> Listing:
        """What is there now; where a look hangs, what the last one found."""
        return await self._since(time.monotonic())

    async def _since(self, moment: float) -> Listing:
        now = time.monotonic()
        while self._looked_at < moment:
            look = self._look or self._begin()
            patience = PATIENCE if self._looked_at > float("-inf") else FIRST_PATIENCE
            left = min(now, self._began) + patience - time.monotonic()
            if left <= 0:
                return self._last()
            await asyncio.wait([look], timeout=left)
            if look.done():
                look.result()
        return self._listing

    def _last(self) -> Listing:
        if time.monotonic() - self._began < HANGS_SECONDS:
            return self._listing
        if not self._told:
            self._told = True
            logs.models.warning("{}", HANGS)
        return Listing(dict(self._listing.entries), (*self._listing.unreadable, HANGS))

    def _begin(self) -> "asyncio.Future[Listing]":
        """In a thread that nobody waits for at the process's end."""
        loop = asyncio.get_running_loop()
        self._began, self._look = time.monotonic(), loop.create_future()

        def look() -> None:
            found: Listing | Exception
            try:
                found = self._library.look()
            except Exception as error:  # it is raised where somebody waits
                found = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._ended, found)

        threading.Thread(target=look, name="look", daemon=True).start()
        return self._look

    def _ended(self, found: Listing | Exception) -> None:
        assert self._look
        look, self._look = self._look, None
        if isinstance(found, Exception):
            look.set_exception(found)
            look.exception()  # taken, also where nobody waits any more
            return
        for sentence in found.unreadable:
            if sentence not in self._listing.unreadable:
                logs.models.warning("{}. Models that lie there are not offered", sentence)
        if self._told:
            self._told = False
            logs.models.info("The look at the models folder has come to its end after {:.0f} s", time.monotonic() - self._began)
        self._listing, self._looked_at = found, self._began
        look.set_result(found)
