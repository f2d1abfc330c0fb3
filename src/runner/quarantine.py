"""Finds the request that crashes a runner: requests that were running in a crash are resumed one after another.

While such a suspect runs, no other request begins: if the engine crashes again, the suspect is to blame. After some tokens it
counts as harmless, and the next suspect begins. Requests that arrive meanwhile queue behind it and are suspects too.
"""

import asyncio

PROOF = 4  # tokens of a first trial; of each further one four times as many, for what kills late


class Suspicion:
    """One request's. `open` until it has drawn enough tokens or has ended."""

    def __init__(self, quarantine: "Quarantine | None", tokens: int = 0) -> None:
        self._quarantine = quarantine
        self._tokens = tokens

    @property
    def open(self) -> bool:
        return self._quarantine is not None

    def count(self, tokens: int) -> bool:
        """So many more tokens have come; returns whether they ended the trial."""
        self._tokens -= tokens
        if not self.open or self._tokens > 0:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Safe to call twice."""
        quarantine, self._quarantine = self._quarantine, None
        if quarantine:
            quarantine._leave()


class Quarantine:
    """One model's."""

    def __init__(self) -> None:
        self._inside = 0  # on trial, or waiting for it
        self._lock = asyncio.Lock()  # wakes those who wait in the order they came

    async def enter(self, crashes: int) -> Suspicion:
        """`crashes` of runners that ended under the request. Waits for the trials before it; then its own has begun."""
        if not crashes and not self._inside:
            return Suspicion(None)
        self._inside += 1
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            self._inside -= 1
            raise
        return Suspicion(self, PROOF ** max(1, crashes))

    def _leave(self) -> None:
        self._inside -= 1
        self._lock.release()
