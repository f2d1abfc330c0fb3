"""Asking the manager and the runners, from blocking code that gevent has patched. Knows no HTTP and no models.

While it waits for an answer it watches the HTTP client's socket too: one poll for both, no second greenlet.
"""

import contextlib
import errno
import select
import socket
import sys
import time
from collections.abc import Generator, Iterator
from typing import Any, ClassVar

from src.errors import ClientGone, EngineUnavailable, RequestTimeout, ServiceError
from src.protocol import (
    MAX_LINE_BYTES,
    AskDownloads,
    AskMetrics,
    AskPlan,
    AskStatus,
    Download,
    DownloadList,
    DownloadProgress,
    Failed,
    Load,
    LoadProgress,
    ManagerEvent,
    Message,
    Metrics,
    ModelPlan,
    ModelReady,
    ProtocolError,
    Resolve,
    RunnerEvent,
    ServiceStatus,
    Switch,
    Unload,
    decode,
    encode,
)

_HANGUP = getattr(select, "POLLRDHUP", 0)  # Linux; macOS tells by POLLHUP
IDLE_SECONDS = 10.0  # without an event: the caller may tell its client that it is still there
CONNECT_SECONDS = 15.0  # the manager may still be starting when the first request comes, or when one has died
STATUS_SECONDS = 5.0
ASK_TRIES = 4  # managers that may die over one question
METRICS_SECONDS = 10.0  # it has to ask every runner
READ_BYTES = 65536


class Exchange:
    """One request on one Unix socket, and the messages that answer it. Closing it cancels the request."""

    open: ClassVar[set["Exchange"]] = set()  # all of this process, so that a shutdown can end them

    def __init__(self, path: str, request: Message, deadline: float, client: socket.socket | None = None, back_in: int = 1) -> None:
        """`deadline` in time.monotonic() seconds; `client` is the HTTP client's socket to watch; `back_in`: seconds after which
        the other side would be there again if it went. Raises OSError."""
        self._deadline, self._back_in = deadline, back_in
        self._client = client
        self._buffer = bytearray()
        self._searched = 0  # bytes of it in which there is no end of line
        self._abort: ServiceError | None = None
        self.lost = False  # the other side has gone in the middle
        self._socket = socket.socket(socket.AF_UNIX)
        self._poll = select.poll()
        Exchange.open.add(self)  # before the first wait: a shutdown that begins meanwhile has to find it
        try:
            self._socket.connect(path)
            self._socket.sendall(encode(request))
        except BaseException:
            self.close()
            raise
        self._poll.register(self._socket, select.POLLIN)
        if client is not None:
            self._poll.register(client, select.POLLIN)
        self._look_each_second = False  # at a client over TLS that has sent something

    def receive(self, kind: Any) -> Any:
        """The next message, or None after IDLE_SECONDS without one.

        Raises the ServiceError of a Failed message, EngineUnavailable when the other side is gone, RequestTimeout at
        the deadline, ClientGone when the HTTP client hung up, and what abort() was given.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_LINE_BYTES:
                raise EngineUnavailable("The model's process answered something that is not an answer.")
            if self._abort:
                raise self._abort
            if not self._wait():
                return None
            if not (data := self._read()):
                self.lost = True
                raise self._abort or EngineUnavailable(
                    "The model's process ended while it worked on this request.", retry_after=self._back_in
                )
            self._buffer += data
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        self._searched = 0
        try:
            message = decode(line, kind)
        except ProtocolError as error:
            raise EngineUnavailable("The model's process answered something that is not an answer.") from error
        if isinstance(message, Failed):
            raise message.error()
        return message

    def abort(self, error: ServiceError) -> None:
        """End the exchange from another greenlet: its reader raises `error`."""
        self._abort = error
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._socket.shutdown(socket.SHUT_RDWR)

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
            wake_at = min(idle_at, self._deadline, now + 1 if self._look_each_second else idle_at)
            ready = {fd for fd, _ in self._poll.poll(1000 * (wake_at - now))}
            if self._client is not None and (self._look_each_second or self._client.fileno() in ready):
                self._look_at_client(self._client)
            if self._socket.fileno() in ready:
                return True

    def _look_at_client(self, client: socket.socket) -> None:
        """End-of-file means that it hung up; also after a half-close, as with nginx. Bytes are its next request."""
        try:
            gone = client.recv(1, socket.MSG_PEEK) == b""
        except ValueError:
            self._look_at_tls_client(client)
            return
        except OSError:
            gone = True
        if gone:
            raise ClientGone
        self._poll.unregister(client)
        self._client = None

    def _look_at_tls_client(self, client: socket.socket) -> None:
        """Its bytes cannot be looked at without being taken, and may be no more than its farewell. The kernel tells whether
        end-of-file comes after them; if not yet, it is asked again."""
        poll = _real_poll()
        poll.register(client, _HANGUP)
        if any(events & (_HANGUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0)):
            raise ClientGone
        if not self._look_each_second:
            self._look_each_second = True
            self._poll.unregister(client)


def _real_poll() -> "select.poll":
    """The kernel's own, which gevent's hides: that one knows no hang-ups. To be asked only without waiting."""
    monkey = sys.modules.get("gevent.monkey")
    real: Any = monkey.get_original("select", "poll") if monkey else select.poll
    poll: select.poll = real()
    return poll


class Generation:
    """One request to a runner: iterate over its events; None among them means that none came for IDLE_SECONDS."""

    def __init__(self, ready: ModelReady, request: Message, deadline: float, client: socket.socket | None) -> None:
        """Raises EngineUnavailable when the runner cannot be reached."""
        try:
            self._exchange = Exchange(ready.socket, request, deadline, client, ready.back_in)
        except OSError as error:
            raise EngineUnavailable(f"The process of the model {ready.model} cannot be reached.", retry_after=ready.back_in) from error

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self._exchange.receive(RunnerEvent)

    def close(self) -> None:
        """Cancel it. Safe to call twice, and after the last event."""
        self._exchange.close()


class ManagerClient:
    """Questions to the manager, each on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def resolve(self, model: str | None, deadline: float, client: socket.socket | None = None) -> ModelReady:
        """The runner of a model; waits while it loads, as long as the manager lets it. Raises ServiceError, ClientGone."""
        ready: ModelReady = self._ask(Resolve(model=model), deadline, client)
        return ready

    def resolving(self, model: str, deadline: float, client: socket.socket | None = None) -> Generator[ModelReady | None, None, None]:
        """The same, for who has to be told that it still waits: None every IDLE_SECONDS until it is there."""
        exchange = self._connect(Resolve(model=model), deadline, client)
        try:
            while True:
                ready = exchange.receive(ManagerEvent)
                yield ready
                if ready is not None:
                    return
        finally:
            exchange.close()

    def load(self, model: str, deadline: float, client: socket.socket | None = None) -> ModelReady:
        ready: ModelReady = self._ask(Load(model=model), deadline, client)
        return ready

    def load_progress(self, model: str, deadline: float, client: socket.socket | None = None) -> Generator[LoadProgress | None, None, None]:
        """How far the load is, till it is through; None among it when nothing has changed for IDLE_SECONDS."""
        exchange = self._connect(Load(model=model, progress=True), deadline, client)
        try:
            while not isinstance(message := exchange.receive(ManagerEvent), ModelReady):
                yield message
        finally:
            exchange.close()

    def unload(self, model: str, deadline: float, client: socket.socket | None = None) -> None:
        """Returns once the model's memory is free."""
        self._ask(Unload(model=model), deadline, client)

    def switch(self, model: str, before: str | None, deadline: float, client: socket.socket | None = None) -> ModelReady:
        ready: ModelReady = self._ask(Switch(model=model, before=before), deadline, client)
        return ready

    def download(
        self, request: Download, deadline: float, client: socket.socket | None = None
    ) -> Generator[DownloadProgress | None, None, None]:
        """How far the download is, till it is done; None among it when nothing has changed for IDLE_SECONDS."""
        exchange = self._connect(request, deadline, client)
        try:
            while True:
                message = exchange.receive(ManagerEvent)
                yield message
                if isinstance(message, DownloadProgress) and message.stage == "done":
                    return
        finally:
            exchange.close()

    def downloads(self, deadline: float) -> list[DownloadProgress]:
        """Those that run, and those that ended lately."""
        found: DownloadList = self._ask(AskDownloads(), deadline, None)
        return found.downloads

    def plan(self, model: str, deadline: float) -> ModelPlan:
        plan: ModelPlan = self._ask(AskPlan(model=model), deadline, None)
        return plan

    def status(self, *, detail: bool = False) -> ServiceStatus:
        status: ServiceStatus = self._ask(AskStatus(detail=detail), time.monotonic() + STATUS_SECONDS, None)
        return status

    def metrics(self) -> str:
        """In Prometheus' text format."""
        metrics: Metrics = self._ask(AskMetrics(), time.monotonic() + METRICS_SECONDS, None)
        return metrics.text

    def _ask(self, request: Message, deadline: float, client: socket.socket | None) -> Any:
        """Asked anew where the manager dies over it: every question may be, and Gunicorn's master starts another manager."""
        for attempt in range(ASK_TRIES):
            exchange = self._connect(request, deadline, client)
            try:
                while (answer := exchange.receive(ManagerEvent)) is None:
                    pass
                return answer
            except EngineUnavailable:
                if not exchange.lost or attempt == ASK_TRIES - 1:
                    raise
            finally:
                exchange.close()
        raise AssertionError("unreachable")

    def _connect(self, request: Message, deadline: float, client: socket.socket | None) -> Exchange:
        give_up = min(deadline, time.monotonic() + CONNECT_SECONDS)
        while True:
            try:
                return Exchange(self._path, request, deadline, client)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):  # those that hold one need it back more than this one a wait
                    raise EngineUnavailable(
                        "The server has no file descriptor left. Raise its limit (ulimit -n).", retry_after=1
                    ) from error
                if time.monotonic() > give_up:
                    raise EngineUnavailable("The server's manager cannot be reached. Restart the server.", retry_after=5) from error
                time.sleep(0.05)
