"""Bytes of the bodies of requests that are not answered yet: a worker holds some of all clients, and half of them of one.

What a body becomes stays in memory until its request has been answered, and requests of megabytes may wait by the hundred.
"""

from collections import Counter

import flask

from src.api.access.scopes import sharer
from src.errors import TooManyRequests


class BodyRoom:
    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Counter[str] = Counter()

    def take(self, holder: str, number: int) -> None:
        """So many bytes more. Raises TooManyRequests where there is no room for them."""
        if self._held[holder] + number > self._size // 2 or self._held.total() + number > self._size:
            self.give_back(holder, 0)
            raise TooManyRequests(
                f"Requests that are not answered yet take all the room there is for their bodies: MAX_BODIES_BYTES allows {self._size} "
                "bytes, half of them for one API key or address. Wait for one to be answered.",
                retry_after=1,
            )
        self._held[holder] += number

    def give_back(self, holder: str, number: int) -> None:
        self._held[holder] -= number
        if not self._held[holder]:
            del self._held[holder]


class Held:
    """What the request at hand holds, until its response has been sent."""

    def __init__(self) -> None:
        self._room: BodyRoom = flask.current_app.extensions["body_room"]
        self._holder, self._number = sharer(), 0
        flask.after_this_request(self._end_with)

    def take(self, number: int) -> None:
        """Raises TooManyRequests."""
        self._room.take(self._holder, number)
        self._number += number

    def _end_with(self, response: flask.Response) -> flask.Response:
        response.call_on_close(lambda: self._room.give_back(self._holder, self._number))
        return response
