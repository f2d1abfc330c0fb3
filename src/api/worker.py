"""What a gateway worker does beyond Gunicorn's gevent worker. Runs in the worker, after gevent has patched it.

- Recycling (--max-requests): Gunicorn would close the listener at once and start a successor only when the last stream
  has ended. Here the worker asks for its successor first, and is told to end once that one accepts.
- Stopping: running streams get SHUTDOWN_GRACE_SECONDS, then an error event rather than a silent end.
- Requests that are not valid HTTP are answered in JSON too.
"""

import os
import resource
import signal
import socket
import sys
import time
import uuid
from http.client import responses
from typing import Any

import gevent
import msgspec
from gunicorn.http import errors as http_errors

from src import logs, master
from src.api import draining
from src.api.connection import Connection, Times, of_this_greenlet
from src.api.metrics import Teller
from src.api.record import Record
from src.errors import ServiceError
from src.settings import Settings

OWN_DESCRIPTORS = 64  # of a worker without a request: listener, logs, libraries; some to spare
A_REQUESTS_DESCRIPTORS = 3  # its client, the model's process, its kept answer

_PARSE_ERRORS: dict[type[Exception], tuple[int, str, str]] = {
    http_errors.LimitRequestLine: (
        414,
        "The request's first line is longer than the {line} bytes that MAX_REQUEST_LINE allows.",
        "uri_too_long",
    ),
    http_errors.LimitRequestHeaders: (
        431,
        "There are more headers than the {fields} that MAX_HEADERS allows, or one has more than the {size} bytes of MAX_HEADER_BYTES.",
        "headers_too_large",
    ),
    http_errors.ExpectationFailed: (417, "The request is not valid HTTP: Expectation Failed.", "expectation_failed"),
    http_errors.UnsupportedTransferCoding: (501, "The request is not valid HTTP: Not Implemented.", "unsupported_transfer_coding"),
}
_BROKEN = (400, "The request is not valid HTTP: Bad Request.", "invalid_http")
_OUR_MISTAKE = (500, "The server made a mistake.", "internal_error")
LINGER_SECONDS, LINGER_BYTES = 1.0, 2**20  # what of a refused request is read still: closed before, its client might lose the answer


def enter(worker: Any) -> None:
    """Called once the worker has loaded the app, before it accepts."""
    settings = Settings.load()
    logs.configure(settings, "gateway")
    if settings.metrics:
        Record.watchers.append(Teller(settings.run_dir).request_ended)
    if settings.otel_exporter_otlp_endpoint:
        from src.api.tracing import Tracer  # only here: the SDK is not installed everywhere

        Record.watchers.append(Tracer(settings.otel_exporter_otlp_endpoint).request_ended)
    worker.worker_connections = min(worker.worker_connections, _connections_that_fit())
    worker.handle_error = lambda request, client, address, error: _answer_broken_request(worker, client, error)
    times = Times(settings.header_timeout, worker.cfg.keepalive, settings.send_timeout)
    handle = worker.handle
    worker.handle = lambda listener, client, address: handle(listener, Connection(client, times), address)
    worker.timeout_ctx = of_this_greenlet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's to answer: it tells its workers
    worker.recycle_at, worker.max_requests = worker.max_requests, sys.maxsize
    worker.succession_asked = False
    # A worker that is being replaced serves its last streams to their end, which REQUEST_TIMEOUT bounds. When the
    # server stops, the master kills what is left after its own, shorter time.
    patience = settings.shutdown_grace_seconds if settings.debug else settings.request_timeout
    worker.cfg.set("graceful_timeout", int(patience) + 10)
    if worker.reloader:
        worker.reloader._callback = lambda path: _reload(worker, path)
    gevent.spawn(_watch_for_stop, worker, settings.shutdown_grace_seconds)
    if master.take_succession():
        # This worker accepts in a moment; connections that come till then wait in the listener that both share.
        os.kill(worker.ppid, signal.SIGTTOU)


def _connections_that_fit() -> int:
    """More wait in the listener's queue. Without a descriptor for the way to the model, those accepted could not be served."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(1, (limit - OWN_DESCRIPTORS) // A_REQUESTS_DESCRIPTORS)


def begin_request(worker: Any, request: Any) -> None:
    """Called before each request: let others have their turn, and at --max-requests ask for a successor."""
    of_this_greenlet().serve(request)
    # A client that always has the next request ready makes its greenlet wait for nothing: it would starve all others, and with
    # them the heartbeat, for whose want the master would kill this worker.
    gevent.sleep(0)
    if worker.nr + 1 >= worker.recycle_at:
        _ask_for_successor(worker)


def _ask_for_successor(worker: Any) -> None:
    if not worker.succession_asked:
        worker.succession_asked = True
        worker.log.info("Worker %s asks for its successor", worker.pid)
        master.ask_succession()
        os.kill(worker.ppid, signal.SIGTTIN)


def _reload(worker: Any, path: str) -> None:
    if not worker.succession_asked:
        worker.log.info("%s has changed: reloading the gateway (the model stays loaded)", path)
    _ask_for_successor(worker)


def _watch_for_stop(worker: Any, grace: float) -> None:
    while not master.stopping():
        gevent.sleep(0.1)
    worker.alive = False  # a SIGTERM that came while this worker was starting was lost
    draining.begin(grace)
    Connection.end_all()
    give_up = time.monotonic() + grace
    while time.monotonic() < give_up and not master.stopping_at_once():
        gevent.sleep(0.1)
    draining.cut()


def _answer_broken_request(worker: Any, client: socket.socket, error: Exception) -> None:
    """Gunicorn's own answer is HTML."""
    failure = _failure_of(error, worker.cfg)
    if failure.status == 500:
        worker.log.exception("Error handling a request")
    body = msgspec.json.encode(failure.body())
    request_id = uuid.uuid4().hex
    head = (
        f"HTTP/1.1 {failure.status} {responses[failure.status]}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n\r\n"
    )
    Record(id=request_id, route="-", began=time.monotonic(), status=failure.status, error=failure.code).write()
    try:
        client.sendall(head.encode() + body)
        client.shutdown(socket.SHUT_WR)
        with gevent.Timeout(LINGER_SECONDS, False):
            left = LINGER_BYTES
            while left > 0 and (data := client.recv(65536)):
                left -= len(data)
    except OSError as failed:
        worker.log.debug("A client left before its error was sent: %s", failed)


def _failure_of(error: Exception, limits: Any) -> ServiceError:
    """`limits`: Gunicorn's configuration."""
    if isinstance(error, ServiceError):
        return error
    known = _BROKEN if isinstance(error, (http_errors.ParseException, OSError)) else _OUR_MISTAKE
    status, text, code = next((answer for kind, answer in _PARSE_ERRORS.items() if isinstance(error, kind)), known)
    size = {"line": limits.limit_request_line, "fields": limits.limit_request_fields, "size": limits.limit_request_field_size}
    failure = ServiceError(text.format(**size))
    failure.status, failure.code = status, code
    failure.type = "server_error" if status == 500 else "invalid_request_error"
    return failure
