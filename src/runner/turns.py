"""Threads that keys share: the next piece of work is that of the key whose work has taken least of their time."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class _Piece(NamedTuple):
    work: Callable[[], Any]
    result: "asyncio.Future[Any]"


class Turns:
    """For the asyncio thread alone. A key that comes anew begins with as much time as the key whose turn it is has taken."""

    def __init__(self, threads: int, name: str) -> None:
        """Of several threads, one key has all but one at most: whoever comes finds one."""
        self._most_of_one = max(1, threads - 1)
        self._running: Counter[str] = Counter()  # pieces, by key
        self._pool = ThreadPoolExecutor(threads, name)
        self._threads = self._free = threads
        self._lines: dict[str, deque[_Piece]] = {}  # of keys that wait
        self._taken: dict[str, float] = {}  # seconds, by key
        self._level = 0.0  # those of the key that had the last turn

    async def run(self, key: str, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises in a thread. Cancelled while it waits for its turn, it is never done."""
        piece = _Piece(work, asyncio.get_running_loop().create_future())
        self._taken[key] = max(self._level, self._taken.get(key, 0.0))
        self._lines.setdefault(key, deque()).append(piece)
        self._begin()
        try:
            result: Result = await piece.result
            return result
        except asyncio.CancelledError:
            self._leave(key, piece)
            raise

    def close(self) -> None:
        """Nothing may be waiting."""
        self._pool.shutdown()

    def _begin(self) -> None:
        while self._free and (keys := [key for key in self._lines if self._running[key] < self._most_of_one]):
            key = min(keys, key=self._taken.__getitem__)
            piece = self._lines[key][0]
            self._leave(key, piece)
            self._level = self._taken[key]
            self._free -= 1
            self._running[key] += 1
            self._start(key, piece)

    def _start(self, key: str, piece: _Piece) -> None:
        began, loop = time.monotonic(), piece.result.get_loop()

        def ended(done: Future[Any]) -> None:
            loop.call_soon_threadsafe(self._end, key, piece, done, time.monotonic() - began)

        self._pool.submit(piece.work).add_done_callback(ended)

    def _end(self, key: str, piece: _Piece, done: Future[Any], seconds: float) -> None:
        self._free += 1
        self._running[key] -= 1
        self._taken[key] += seconds
        if not piece.result.done():  # else its client has left
            if error := done.exception():
                piece.result.set_exception(error)
            else:
                piece.result.set_result(done.result())
        self._begin()
        if self._free == self._threads:  # nobody is left to be fair to
            self._taken.clear()
            self._running.clear()
            self._level = 0.0

    def _leave(self, key: str, piece: _Piece) -> None:
        """Take a piece out of its line, where it still is in it."""
        line = self._lines.get(key, deque())
        if piece in line:
            line.remove(piece)
        if not line:
            self._lines.pop(key, None)
