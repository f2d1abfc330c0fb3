"""Sends what a gateway worker's records say to the manager, for the metrics."""

import threading
import time
from collections import deque
from pathlib import Path
from socket import AF_UNIX, socket

from src.api.observe.record import AccessRecord
from src.peer import require_same_user
from src.protocol import Message, RequestEnded, TokenGaps, encode
from src.protocol.buffers import widen

SEND_SECONDS = 1.0  # for a manager that does not read: it is stopped, or gone
KEPT = 1000  # messages, while the manager cannot be reached


class Reporter:
    """A worker's own connection to the manager, on which nothing comes back. Any greenlet may call send."""

    def __init__(self, run_dir: str) -> None:
        self._path = str(Path(run_dir) / "manager.sock")
        self._lock = threading.Lock()  # one line must not come into another
        self._kept: deque[bytes] = deque(maxlen=KEPT)
        self._socket: socket | None = None

    def send(self, message: Message) -> None:
        """Now, or with the next message where the manager cannot be reached. Never raises for that."""
        with self._lock:
            self._kept.append(encode(message))
            try:
                while self._kept:
                    self._connected().sendall(self._kept[0])
                    self._kept.popleft()
            except OSError:
                self._disconnect()  # half a line may have gone: the manager drops it with the connection

    def request_ended(self, record: AccessRecord) -> None:
        if record.model and record.token_gaps:
            self.send(TokenGaps(model=record.model, seconds=record.token_gaps))
        self.send(_ended(record))

    def _connected(self) -> socket:
        if self._socket is None:
            self._socket = socket(AF_UNIX)
            widen(self._socket)
            self._socket.settimeout(SEND_SECONDS)
            self._socket.connect(self._path)
            require_same_user(self._socket)
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _ended(record: AccessRecord) -> RequestEnded:
    return RequestEnded(
        route=record.rule,
        status=record.outcome,
        seconds=time.monotonic() - record.began,
        model=record.model,
        endings=record.finish_reasons,
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        queue_seconds=record.queue_time,
        first_token_seconds=record.first_token,
        prefill_seconds=record.prefill_time,
        decode_seconds=record.decode_time,
    )
