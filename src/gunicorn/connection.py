"""A client's connection as Gunicorn sees it, a socket: how long it may take to send a request, and to read an answer. Knows no route.

Gevent's sockets wait for ever. One whose client reads nothing of its answer would hold its job's place and its memory.
"""

import contextlib
import errno
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import gevent
import msgspec
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize, LimitRequestHeaders, NoMoreData, ParseException

from src.errors import HeaderTimeout
from src.gunicorn.crowd import Waiter, crowd

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close forgets what was not sent yet
# What the kernel takes beyond what is on its way; where there is no such bound it is megabytes, of each client that does not read.
UNSENT_BYTES = 64 * 1024
_UNSENT = {"linux": 25, "darwin": 0x201}.get(sys.platform)  # TCP_NOTSENT_LOWAT
HEAD_BYTES = 128 * 1024  # of a request line and all headers: Gunicorn looks through all of it each time that more comes
LEFT_OVER_BYTES = 64 * 2**20  # of a refused request's body: read and thrown away, for its client to see the answer
SMALL_CHUNKS, SMALL_CHUNK_BYTES = 4096, 64  # so many chunks of a body may be smaller: to parse one takes as long as to copy kilobytes
STOPPING_SECONDS = 0.1  # for a request that is on its way: it learns why it is not served


class Times(msgspec.Struct, frozen=True):
    """In seconds, by the settings of these names."""

    header: float
    keepalive: float
    send: float


class Connection:
    """In a `with` while the head of the next request is read; by one greenlet alone, but for end_all()."""

    stopping: ClassVar[bool] = False

    def __init__(self, client: socket.socket, times: Times, network: str) -> None:
        """`network`: its peer's."""
        self._client = client
        self._times = times
        self._first = True
        self._waiter = Waiter(network, NoMoreData)
        self._request: Any = None
        self._deadline: float | None = None
        self._head_bytes = 0
        self.stalled = False  # its client was cut off because it read nothing
        gevent.getcurrent().connection = self
        if _UNSENT is not None and client.family in (socket.AF_INET, socket.AF_INET6):
            with contextlib.suppress(OSError):  # macOS: EINVAL where its client has reset it meanwhile, as port scanners do
                client.setsockopt(socket.IPPROTO_TCP, _UNSENT, UNSENT_BYTES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def serve(self, request: Any) -> None:
        """Called before each request, with Gunicorn's."""
        self._request = request
        if isinstance(reader := request.body.reader, ChunkedReader):
            reader.parser = _of_fair_size(reader.parser)

    def __enter__(self) -> "Connection":
        self._drain()
        seconds = self._times.header if self._first else self._times.keepalive
        self._deadline = time.monotonic() + (STOPPING_SECONDS if self.stopping else seconds)
        self._first = self._waiter.heard = False
        self._head_bytes = 0
        self._waiter.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._deadline = None
        self._waiter.__exit__()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Raises HeaderTimeout, LimitRequestHeaders, and NoMoreData where none of a request has come in time."""
        gevent.sleep(0)  # where there is always more to read, nobody else would have a turn, no timeout either
        if flags or self._deadline is None:
            return self._client.recv(size, flags)
        try:
            with gevent.Timeout(max(0.001, self._deadline - time.monotonic()), TimeoutError):
                data = self._client.recv(size)
        except TimeoutError:
            if self._waiter.heard and not self.stopping:
                raise HeaderTimeout(f"The request's headers took longer than the {self._times.header:g} s of HEADER_TIMEOUT.") from None
            raise NoMoreData from None
        if not self._waiter.heard:
            self._waiter.heard = True
            self._deadline = time.monotonic() + self._times.header
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            raise LimitRequestHeaders(f"more than {HEAD_BYTES} bytes")
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

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Raises ConnectionResetError where its client has taken nothing for SEND_TIMEOUT, or is gone."""
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
            except OSError as error:
                if error.errno == errno.EPROTOTYPE:  # macOS says so of a connection that it is just ending
                    raise ConnectionResetError(errno.ECONNRESET, "the client is gone") from error
                raise

    @classmethod
    def end_all(cls) -> None:
        """When the server stops: idle connections would keep it for all of their time."""
        cls.stopping = True
        for waiter in crowd.waiting:
            waiter.end()


def _of_fair_size(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks of a body. Raises InvalidChunkSize where most of many are tiny."""
    size = 0
    for number, chunk in enumerate(chunks):
        size += len(chunk)
        if number > SMALL_CHUNKS + size // SMALL_CHUNK_BYTES:
            raise InvalidChunkSize(b"too many small chunks")
        yield chunk


def of_this_greenlet() -> Connection:
    found: Connection = gevent.getcurrent().connection
    return found
