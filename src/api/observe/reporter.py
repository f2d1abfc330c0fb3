"""GET /metrics, and what a gateway worker tells the manager for it. Counts nothing: with several workers none could count all."""

import threading
import time
from collections import deque
from pathlib import Path
from socket import AF_UNIX, socket

import flask

from src.api.access import needs
from src.api.record import Record
from src.api.service import service
from src.protocol import Message, RequestEnded, TokenGaps, encode

blueprint = flask.Blueprint("metrics", __name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SEND_SECONDS = 1.0  # for a manager that does not read: it is stopped, or gone
KEPT = 1000  # messages, while the manager cannot be reached


@blueprint.get("/metrics")
@needs("monitor", unless_off="metrics_require_key")
def scrape() -> flask.Response:
    return flask.Response(service().manager.metrics(), content_type=CONTENT_TYPE)


class Teller:
    """A worker's own connection to the manager, on which nothing comes back. Any greenlet may call tell."""

    def __init__(self, run_dir: str) -> None:
        self._path = str(Path(run_dir) / "manager.sock")
        self._lock = threading.Lock()  # one line must not come into another
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self._socket: socket | None = None

    def tell(self, message: Message) -> None:
        """Now, or with the next message where the manager cannot be reached. Never raises for that."""
        with self._lock:
            self._kept.append(encode(message))
            try:
                while self._kept:
                    self._connected().sendall(self._kept[0])
                    self._kept.popleft()
            except OSError:
                self._disconnect()  # half a line may have gone: the manager drops it with the connection

    def request_ended(self, of: Record) -> None:
        if of.model and of.token_gaps:
            self.tell(TokenGaps(model=of.model, seconds=of.token_gaps))
        self.tell(_ended(of))

    def _connected(self) -> socket:
        if self._socket is None:
            self._socket = socket(AF_UNIX)
            self._socket.settimeout(SEND_SECONDS)
            self._socket.connect(self._path)
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _ended(of: Record) -> RequestEnded:
    return RequestEnded(
        route=of.rule,
        status=of.outcome,
        seconds=time.monotonic() - of.began,
        model=of.model,
        endings=of.endings,
        prompt_tokens=of.prompt_tokens,
        completion_tokens=of.completion_tokens,
        queue_seconds=of.queue_time,
        first_token_seconds=of.first_token,
        prefill_seconds=of.prefill_time,
        decode_seconds=of.decode_time,
    )
