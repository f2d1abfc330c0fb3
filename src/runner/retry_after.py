"""How fast places become free, for who has to be told when to come again. Knows no request."""

import time
from collections import deque

from src.protocol import retry_after_seconds

WINDOW = 60.0  # seconds that count


class PlaceEstimate:
    def __init__(self) -> None:
        self._since = time.monotonic()
        self._ends: deque[float] = deque()  # monotonic seconds, one a place

    def ended(self, places: int) -> None:
        now = time.monotonic()
        self._ends.extend([now] * places)
        while self._ends and now - self._ends[0] > WINDOW:
            self._ends.popleft()

    def seconds_for(self, places: int) -> int:
        """Until so many places will be free, at the pace of the last minute; where none became free, as long as that has lasted."""
        now = time.monotonic()
        recent = [at for at in self._ends if now - at <= WINDOW]
        watched = min(WINDOW, now - self._since)
        return retry_after_seconds(watched * places / max(1, len(recent)))
