"""Whose fault was it? Requests that a runner died under go on one after another. Knows no request and no engine.

While such a request is on trial nothing else is begun: if the engine dies again, it dies of this one. After some tokens it
is taken for harmless, and the next one's trial begins. Requests that come meanwhile wait for their turn and are tried too.
"""

import asyncio

PROOF = 4  # tokens of a first trial; of each further one four times as many, for what kills late


class Trial:
    """One request's. `open` until it has drawn enough tokens or has ended."""

    def __init__(self, turnstile: "Turnstile | None", tokens: int = 0) -> None:
        self._turnstile = turnstile
        self._tokens = tokens

    @property
    def open(self) -> bool:
        return self._turnstile is not None

    def drew(self, tokens: int) -> bool:
        """Whether this ended the trial."""
        self._tokens -= tokens
        if not self.open or self._tokens > 0:
            return False
        self.end()
        return True

    def end(self) -> None:
        """Safe to call twice."""
        turnstile, self._turnstile = self._turnstile, None
        if turnstile:
            turnstile._leave()


class Turnstile:
    """One model's."""

    def __init__(self) -> None:
        self._inside = 0  # on trial, or waiting for it
        self._lock = asyncio.Lock()  # wakes those who wait in the order they came

    async def enter(self, deaths: int) -> Trial:
        """`deaths` of runners that ended under the request. Waits for the trials before it; then its own has begun."""
        if not deaths and not self._inside:
            return Trial(None)
        self._inside += 1
        try:
            await self._lock.acquire()
        except asyncio.CancelledError:
            self._inside -= 1
            raise
        return Trial(self, PROOF ** max(1, deaths))

    def _leave(self) -> None:
        self._inside -= 1
        self._lock.release()
