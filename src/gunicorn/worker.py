"""What a gateway worker does beyond Gunicorn's gevent worker. Runs in the worker, after gevent has patched it.

- Recycling (--max-requests): Gunicorn would close the listener at once and start a successor only when the last stream
  has ended. Here the worker asks for its successor first, and is told to end once that one accepts.
- Stopping: running streams get SHUTDOWN_GRACE_SECONDS, then an error event rather than a silent end.
- Floods: connections of one address have a bound, silent ones give way to others, and a request whose client has left is not begun.
- Requests that are not valid HTTP are answered in JSON too.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable
from http.client import responses
from typing import Any

import gevent
import msgspec
from gunicorn.http import errors as gunicorn_errors

from src import errors, logs
from src.api import failures, shutdown
from src.api.access.address import Proxies, is_loopback, network_of
from src.api.observe.record import AccessRecord
from src.api.observe.reporter import Reporter
from src.errors import ServiceError
from src.gunicorn import health
from src.gunicorn.abandoned import is_abandoned
from src.gunicorn.connection import HEAD_BYTES, Connection, Times, of_this_greenlet
from src.gunicorn.crowd import crowd
from src.gunicorn.handover import handover
from src.settings import Settings

OWN_DESCRIPTORS = 64  # of a worker without a request: listener, logs, libraries; some to spare
REQUEST_DESCRIPTORS = 3  # its client, the model's process, its kept answer
LINGER_SECONDS, LINGER_BYTES = 1.0, 2**20  # what of a refused request is read still: closed before, its client might lose the answer

# The first that fits. Limits in braces by their names in Gunicorn's configuration.
_HTTP_ERRORS: dict[type[Exception], tuple[type[ServiceError], str]] = {
    gunicorn_errors.LimitRequestLine: (
        errors.URITooLong,
        "The request's first line is longer than the {limit_request_line} bytes that MAX_REQUEST_LINE allows.",
    ),
    gunicorn_errors.LimitRequestHeaders: (
        errors.HeadersTooLarge,
        "There are more headers than the {limit_request_fields} that MAX_HEADERS allows, one has more than the "
        f"{{limit_request_field_size}} bytes of MAX_HEADER_BYTES, or all together have more than {HEAD_BYTES}.",
    ),
    gunicorn_errors.ExpectationFailed: (errors.ExpectationFailed, "The request is not valid HTTP: Expectation Failed."),
    gunicorn_errors.UnsupportedTransferCoding: (errors.UnsupportedTransferCoding, "The request is not valid HTTP: Not Implemented."),
    gunicorn_errors.ParseException: (errors.InvalidHTTP, "The request is not valid HTTP: Bad Request."),
    OSError: (errors.InvalidHTTP, "The request is not valid HTTP: Bad Request."),
}


class GatewayWorker:
    """Extends one of Gunicorn's workers, which keeps it as `gateway`."""

    # Of Gunicorn 27's GeventWorker, where it has no hook: what is replaced, and what is used.
    REPLACES = ("handle", "handle_error", "timeout_ctx", "worker_connections", "max_requests", "alive")
    USES = ("cfg", "log", "nr", "pid", "ppid", "reloader", "wsgi")

    def __init__(self, worker: Any, settings: Settings) -> None:
        self._worker = worker
        self._recycle_at = worker.max_requests
        self._succession_asked = False
        times = Times(settings.header_timeout, worker.cfg.keepalive, settings.send_timeout)
        self._handle, self._times = worker.handle, times
        worker.handle = self._serve
        worker.handle_error = lambda request, client, address, error: self._answer_broken_request(client, error)
        worker.timeout_ctx = of_this_greenlet
        worker.worker_connections = min(worker.worker_connections, _connections_that_fit())
        self._asked_by_clients: frozenset[str] = worker.wsgi.extensions["asked_by_clients"]
        crowd.limit(worker.worker_connections - _spare(worker.worker_connections), settings.max_connections_per_address, _bounded(settings))
        health.serve(worker.handle)
        worker.max_requests = sys.maxsize
        # A worker that is being replaced serves its last streams to their end, which REQUEST_TIMEOUT bounds. When the
        # server stops, the master kills what is left after its own, shorter time.
        patience = settings.shutdown_grace_seconds if settings.debug else settings.request_timeout
        worker.cfg.set("graceful_timeout", int(patience) + 10)
        if worker.reloader:
            worker.reloader._callback = self._reload
        gevent.spawn(self._watch_for_stop, settings.shutdown_grace_seconds)

    def _serve(self, listener: Any, client: socket.socket, address: Any) -> None:
        network = crowd.enter(address)
        if network is None:
            self._turn_away(client)
        else:
            self._handle(listener, Connection(client, self._times, network), address)

    def _turn_away(self, client: socket.socket) -> None:
        told = "This address has as many connections as MAX_CONNECTIONS_PER_ADDRESS allows. Close one first."
        with contextlib.suppress(OSError):
            client.sendall(self._error_response(errors.TooManyRequests(told, retry_after=1)))

    def begin_request(self, request: Any) -> None:
        """Called before each request: let others have their turn, and at --max-requests ask for a successor. Raises StopIteration,
        on which Gunicorn closes the connection, for a question whose client has left."""
        connection: Any = of_this_greenlet()
        connection.serve(request)
        # A client that always has the next request ready makes its greenlet wait for nothing: it would starve all others, and with
        # them the heartbeat, for whose want the master would kill this worker.
        gevent.sleep(0)
        if request.method == "POST" and request.path in self._asked_by_clients and is_abandoned(request, connection):
            raise StopIteration
        if self._worker.nr + 1 >= self._recycle_at:
            self._ask_for_successor()

    def _ask_for_successor(self) -> None:
        if not self._succession_asked:
            self._succession_asked = True
            self._worker.log.info("Worker %s asks for its successor", self._worker.pid)
            handover.ask_succession()
            os.kill(self._worker.ppid, signal.SIGTTIN)

    def _reload(self, path: str) -> None:
        if not self._succession_asked:
            self._worker.log.info("%s has changed: reloading the gateway (the model stays loaded)", path)
        self._ask_for_successor()

    def _watch_for_stop(self, grace: float) -> None:
        while not handover.stopping:
            gevent.sleep(0.1)
        self._worker.alive = False  # a SIGTERM that came while this worker was starting was lost
        shutdown.begin(grace)
        Connection.end_all()
        give_up = time.monotonic() + grace
        while time.monotonic() < give_up and not handover.stopping_at_once:
            gevent.sleep(0.1)
        shutdown.cut()

    def _answer_broken_request(self, client: socket.socket, error: Exception) -> None:
        """Gunicorn's own answer is HTML."""
        answer = self._error_response(error)
        try:
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            with gevent.Timeout(LINGER_SECONDS, False):
                left = LINGER_BYTES
                while left > 0 and (data := client.recv(65536)):
                    left -= len(data)
        except OSError as failed:
            self._worker.log.debug("A client left before its error was sent: %s", failed)

    def _error_response(self, error: Exception) -> bytes:
        record = AccessRecord(id=uuid.uuid4().hex, route="-", began=time.monotonic())
        failure = failures.as_service_error(_translated(error, self._worker.cfg), record, {})
        record.status, record.error = failure.status, failure.code
        record.write()
        body = msgspec.json.encode(failure.body())
        head = (
            f"HTTP/1.1 {failure.status} {responses[failure.status]}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: {record.id}\r\n\r\n"
        )
        return head.encode() + body


def enter(worker: Any) -> None:
    """Called once the worker has loaded the app, before it accepts."""
    settings = Settings.load()
    logs.configure(settings, "gateway")
    if settings.metrics:
        AccessRecord.listeners.append(Reporter(settings.run_dir).request_ended)
    if settings.otel_exporter_otlp_endpoint:
        from src.api.observe.tracing import Tracer  # only here: the SDK is not installed everywhere

        AccessRecord.listeners.append(Tracer(settings.otel_exporter_otlp_endpoint).request_ended)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer: it tells its workers
    worker.gateway = GatewayWorker(worker, settings)
    if handover.take_succession():
        # This worker accepts in a moment; connections that come till then wait in the listener that both share.
        os.kill(worker.ppid, signal.SIGTTOU)


def _connections_that_fit() -> int:
    """More wait in the listener's queue. Without a descriptor for the way to the model, those accepted could not be served."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, (limit - OWN_DESCRIPTORS) // REQUEST_DESCRIPTORS)


def _spare(places: int) -> int:
    """Of them are kept free: gevent accepts up to a hundred connections before any of them has its turn."""
    return min(100, places // 10)


def _bounded(settings: Settings) -> Callable[[str], str]:
    """The network of a peer whose connections have a bound; "" for this machine's, and for trusted proxies, which speak for many."""
    proxies = Proxies(settings.proxies)
    return lambda address: "" if is_loopback(address) or proxies.is_trusted(address) else network_of(address)


def _translated(error: Exception, config: Any) -> Exception:
    """Gunicorn's errors as ours. `config`: Gunicorn's, for the limits."""
    for foreign, (kind, text) in _HTTP_ERRORS.items():
        if isinstance(error, foreign):
            limits = ("limit_request_line", "limit_request_fields", "limit_request_field_size")
            return kind(text.format(**{name: getattr(config, name) for name in limits}))
    return error
