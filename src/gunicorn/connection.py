"""A client's connection as Gunicorn sees it, a socket: how long it may take to send a request, and to read an answer. Knows no route.

Gevent's sockets wait for ever. One whose client reads nothing of its answer would hold its job's place and its memory.
"""

import contextlib
import errno
import socket
import struct
import sys
import time
from typing import Any, ClassVar

import gevent
import msgspec
from gunicorn.http.errors import NoMoreData, ParseException

from src.errors import HeaderTimeout

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close forgets what was not sent yet
# What the kernel takes beyond what is on its way; where there is no such bound it is megabytes, of each client that does not read.
UNSENT_BYTES = 64 * 1024
_UNSENT = {"linux": 25, "darwin": 0x201}.get(sys.platform)  # TCP_NOTSENT_LOWAT
LEFT_OVER_BYTES = 64 * 2**20  # of a refused request's body: read and thrown away, for its client to see the answer
STOPPING_SECONDS = 0.1  # for a request that is on its way: it learns why it is not served


class Times(msgspec.Struct, frozen=True):
    """In seconds, by the settings of these names."""

    header: float
    keepalive: float
    send: float


class Connection:
    """In a `with` while the head of the next request is read; by one greenlet alone, but for end_all()."""

    expecting: ClassVar[set["Connection"]] = set()  # those within their `with`
    stopping: ClassVar[bool] = False

    def __init__(self, client: socket.socket, times: Times) -> None:
        self._client = client
        self._times = times
        self._first = True
        self._heard = False  # something of the request that is expected
        self._request: Any = None
        self._deadline: float | None = None
        self.stalled = False  # its client was cut off because it read nothing
        gevent.getcurrent().connection = self
        if _UNSENT is not None and client.family in (socket.AF_INET, socket.AF_INET6):
            client.setsockopt(socket.IPPROTO_TCP, _UNSENT, UNSENT_BYTES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def serve(self, request: Any) -> None:
        """Called before each request, with Gunicorn's."""
        self._request = request

    def __enter__(self) -> "Connection":
        self._drain()
        seconds = self._times.header if self._first else self._times.keepalive
        self._deadline = time.monotonic() + (STOPPING_SECONDS if self.stopping else seconds)
        self._greenlet = gevent.getcurrent()
        self._first = self._heard = False
        self.expecting.add(self)
        return self

    def __exit__(self, *raised: object) -> None:
        self._deadline = None
        self.expecting.discard(self)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Raises HeaderTimeout, and NoMoreData where none of a request has come in time."""
        if flags or self._deadline is None:
            return self._client.recv(size, flags)
        try:
            with gevent.Timeout(max(0.001, self._deadline - time.monotonic()), TimeoutError):
                data = self._client.recv(size)
        except TimeoutError:
            if self._heard and not self.stopping:
                raise HeaderTimeout(f"The request's headers took longer than the {self._times.header:g} s of HEADER_TIMEOUT.") from None
            raise NoMoreData from None
        if not self._heard:
            self._heard = True
            self._deadline = time.monotonic() + self._times.header
        return data

    def _drain(self) -> None:
        """Read what a refused request has left of its body. Raises NoMoreData where that is too much, or takes too long."""
        request, self._request = self._request, None
        if request is None or getattr(request.body, "failed", False):
            return
        left = LEFT_OVER_BYTES
        with contextlib.suppress(ParseException), gevent.Timeout(self._times.header, NoMoreData):
            while data := request.body.read(65536):
                left -= len(data)
                if left < 0:
                    raise NoMoreData
                gevent.sleep(0)  # who sends faster than this reads would keep all others waiting

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Raises ConnectionResetError where its client has taken nothing for SEND_TIMEOUT."""
        left = memoryview(data)
        while left:
            try:
                with gevent.Timeout(self._times.send, TimeoutError):
                    left = left[self._client.send(left, flags) :]
            except TimeoutError:
                self.stalled = True
                with contextlib.suppress(OSError):
                    self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                raise ConnectionResetError(errno.ECONNRESET, "the client read nothing for SEND_TIMEOUT") from None

    @classmethod
    def end_all(cls) -> None:
        """When the server stops: idle connections would keep it for all of their time."""
        cls.stopping = True
        for connection in list(cls.expecting):
            gevent.get_hub().loop.run_callback(connection._end)

    def _end(self) -> None:
        if self in self.expecting:  # its request may have come since
            self._greenlet.throw(NoMoreData())


def of_this_greenlet() -> Connection:
    found: Connection = gevent.getcurrent().connection
    return found
