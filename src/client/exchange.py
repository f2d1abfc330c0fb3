"""One request over a Unix socket and the messages that answer it, from blocking code that gevent has patched.

While it waits for an answer it watches the HTTP client's socket too: one poll for both, no second greenlet.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

from src.client.hangup import has_hung_up
from src.errors import ClientGone, EngineUnavailable, RequestTimeout, ServiceError
from src.peer import require_same_user
from src.protocol import MAX_LINE_BYTES, Failed, Message, ModelReady, ProtocolError, RunnerEvent, decode, encode
from src.protocol.buffers import widen

IDLE_SECONDS = 5.0  # without an event: the caller may tell its client that it is still there
LOOK_SECONDS = 1.0  # between two looks at a client that has sent something, which hides a hang-up from the poll
READ_BYTES = 65536


class Unreachable(EngineUnavailable):
    """Nobody listens on the socket: the process has ended or has not started yet."""


class Exchange:
    """One request on one Unix socket, and the messages that answer it. Closing it cancels the request."""

    open: ClassVar[set["Exchange"]] = set()  # all of this process, so that a shutdown can end them
    refusal: ClassVar[Callable[[], ServiceError] | None] = None  # once a shutdown has ended them

    def __init__(self, path: str, request: Message, deadline: float, client: socket.socket | None = None, retry_after: int = 1) -> None:
        """`deadline` in time.monotonic() seconds; `client` is the HTTP client's socket to watch; `retry_after`: seconds after which
        the other side would be there again if it went. Raises OSError, and what refuse_all() was given."""
        if Exchange.refusal:
            raise Exchange.refusal()
        self._deadline, self._retry_after = deadline, retry_after
        self._client = client
        self._client_has_sent = False
        self._buffer = bytearray()
        self._searched = 0  # bytes of it in which there is no end of line
        self._abort: ServiceError | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        widen(self._socket)
        self._poll = select.poll()
        Exchange.open.add(self)  # before the first wait: a shutdown that begins meanwhile has to find it
        try:
            self._socket.connect(path)
            require_same_user(self._socket)
            self._socket.sendall(encode(request))
        except BaseException:
            self.close()
            raise
        self._poll.register(self._socket, select.POLLIN)
        if client is not None:
            self._poll.register(client, select.POLLIN)

    def receive(self, kind: Any) -> Any:
        """The next message, or None after IDLE_SECONDS without one.

        Raises the ServiceError of a Failed message, EngineUnavailable when the other side is gone, RequestTimeout at
        the deadline, ClientGone when the HTTP client hung up, and what abort() was given.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_LINE_BYTES:
                raise EngineUnavailable("Invalid reply from the model process.")
            if self._abort:
                raise self._abort
            if not self._wait():
                return None
            if not (data := self._read()):
                raise self._abort or EngineUnavailable(
                    "The model's process ended while it worked on this request.", retry_after=self._retry_after
                )
            self._buffer += data
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._searched = 0
        try:
            message = decode(line, kind)
        except ProtocolError as error:
            raise EngineUnavailable("Invalid reply from the model process.") from error
        if isinstance(message, Failed):
            raise message.error()
        return message

    def abort(self, error: ServiceError) -> None:
        """End the exchange from another greenlet: its reader raises `error`."""
        self._abort = error
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    @classmethod
    def refuse_all(cls, refusal: Callable[[], ServiceError]) -> None:
        """Abort every exchange of this process, and let none begin any more."""
        cls.refusal = refusal
        for exchange in list(cls.open):
            exchange.abort(refusal())

    def close(self) -> None:
        Exchange.open.discard(self)
        self._socket.close()

    def _read(self) -> bytes:
        """What has come; b"" once the other side is gone. One that never took our request resets the connection."""
        try:
            return self._socket.recv(READ_BYTES)
        except ConnectionError:
            return b""

    def _wait(self) -> bool:
        """Wait for data. False after IDLE_SECONDS without any."""
        idle_at = time.monotonic() + IDLE_SECONDS
        while True:
            now = time.monotonic()
            if now >= self._deadline:
                raise self._abort or RequestTimeout("The request took longer than its timeout or REQUEST_TIMEOUT allows. Ask for less.")
            if now >= idle_at:
                return False
            wake_at = min(idle_at, self._deadline, now + LOOK_SECONDS if self._client_has_sent else idle_at)
            ready = {fd for fd, _ in self._poll.poll(1000 * (wake_at - now))}
            if self._client is not None and (self._client_has_sent or self._client.fileno() in ready):
                self._look_at_client(self._client)
            if self._socket.fileno() in ready:
                return True

    def _look_at_client(self, client: socket.socket) -> None:
        """Once it has sent something, the poll would return at once: from then on it is looked at now and then."""
        if has_hung_up(client):
            raise ClientGone
        if not self._client_has_sent:
            self._client_has_sent = True
            self._poll.unregister(client)


class Generation:
    """One request to a runner."""

    def __init__(self, ready: ModelReady, request: Message, deadline: float, client: socket.socket | None) -> None:
        """Raises EngineUnavailable when the runner cannot be reached."""
        try:
            self._exchange = Exchange(ready.socket, request, deadline, client, ready.retry_after)
        except OSError as error:
            raise unavailable(error, f"The process of the model {ready.model} cannot be reached.", ready.retry_after) from error

    def receive(self) -> Any:
        """The next event, or None when none came for IDLE_SECONDS. Raises as Exchange.receive does."""
        return self._exchange.receive(RunnerEvent)

    def close(self) -> None:
        """Cancel it. Safe to call twice, and after the last event."""
        self._exchange.close()


def unavailable(error: OSError, message: str, retry_after: int) -> EngineUnavailable:
    """What it means that an exchange could not begin."""
    if error.errno in (errno.EMFILE, errno.ENFILE):  # those that hold one need it back more than this one a wait
        return EngineUnavailable("The server has no file descriptor left. Raise its limit (ulimit -n).", retry_after=1)
    return Unreachable(message, retry_after=retry_after)
