"""The connections of this worker: how many there are of each network, and which of them have sent no request yet. Knows no HTTP.

Whoever connects and says nothing would take all places. So some are kept free: where one more would take them, or a network has as
many as it may, the connection that has been silent for longest is ended.
"""

import sys
from collections import Counter
from collections.abc import Callable

import gevent


class Waiter:
    """A connection whose next bytes are awaited, in a `with` of its own greenlet."""

    def __init__(self, network: str, ending: type[BaseException]) -> None:
        """`ending`: raised in the greenlet when it is to end."""
        self.network, self.heard = network, False
        self.is_ending = False
        self._ending = ending
        self._greenlet = gevent.getcurrent()

    def __enter__(self) -> "Waiter":
        self.is_ending = False  # where it was to end, its request may have come before
        crowd.waiting[self] = None
        return self

    def __exit__(self, *raised: object) -> None:
        crowd.waiting.pop(self, None)

    def end(self) -> None:
        self.is_ending = True
        gevent.get_hub().loop.run_callback(self._end)

    def _end(self) -> None:
        if self in crowd.waiting:  # its request may have come since
            self._greenlet.throw(self._ending())


class Crowd:
    def __init__(self) -> None:
        self.waiting: dict[Waiter, None] = {}  # who waits for longest first
        self._networks: dict[gevent.Greenlet, str] = {}
        self._numbers: Counter[str] = Counter()
        self.limit(sys.maxsize, 0, lambda address: "")

    def limit(self, most: int, most_of_one: int, network_of: Callable[[str], str]) -> None:
        """`most`: connections beyond which silent ones end; `most_of_one`: those of one network, 0: as many; `network_of` a peer's
        address, "" where it has no bound."""
        self._most, self._most_of_one, self._network_of = most, most_of_one, network_of

    def enter(self, address: object) -> str | None:
        """Count this greenlet's connection until the greenlet ends; it may be said twice. The peer's network, or None where that has
        as many as it may, and none of them is silent. `address`: as sockets have it."""
        greenlet = gevent.getcurrent()
        if greenlet in self._networks:
            return self._networks[greenlet]
        network = self._network_of(address[0]) if isinstance(address, tuple) else ""
        if network and 0 < self._most_of_one <= self._numbers[network] and not self._end_silent(network):
            return None
        if len(self._networks) >= self._most:
            self._end_silent()
        self._networks[greenlet] = network
        self._numbers[network] += 1
        greenlet.link(self._leave)
        return network

    def _leave(self, greenlet: gevent.Greenlet) -> None:
        network = self._networks.pop(greenlet)
        self._numbers[network] -= 1
        if not self._numbers[network]:
            del self._numbers[network]

    def _end_silent(self, network: str | None = None) -> bool:
        """One that has sent nothing, the oldest first, or else one whose request has begun to come. Whether there was one."""
        ready = [waiter for waiter in self.waiting if not waiter.is_ending and network in (None, waiter.network)]
        waiter = next((waiter for waiter in ready if not waiter.heard), None) or next(iter(ready), None)
        if waiter is None:
            return False
        waiter.end()
        return True


crowd = Crowd()
