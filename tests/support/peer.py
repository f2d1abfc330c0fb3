"""The other side of an exchange, scripted: a Unix socket that answers as a runner or a manager would at its best and worst."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from src.protocol import RunnerRequest, decode


class Peer:
    """A Unix socket whose connections are each read a request from, and then answered by `answer`, in a thread."""

    def __init__(self, path: Path, answer: Callable[[socket.socket], None], kind: object = RunnerRequest) -> None:
        self.path = str(path)
        self.requests: list[object] = []
        self.errors: list[BaseException] = []
        self._answer, self._kind = answer, kind
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as lines:
                line = lines.readline()
                if not line:  # what __exit__ connects for
                    return
                try:
                    self.requests.append(decode(line, self._kind))
                    self._answer(connection)
                except BaseException as error:
                    self.errors.append(error)

    def __enter__(self) -> "Peer":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(self.path)
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()
        assert self.errors == [], self.errors


def sends(*data: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        for piece in data:
            connection.sendall(piece)

    return answer


def stays_silent(connection: socket.socket) -> None:
    """Until the other side hangs up."""
    assert connection.recv(1) == b""


def then_silent(act: Callable[[], object]) -> Callable[[socket.socket], None]:
    """Do something once the request is here, that is while the other side waits for the answer."""

    def answer(connection: socket.socket) -> None:
        act()
        stays_silent(connection)

    return answer


def soon() -> float:
    """A deadline that no test reaches."""
    return time.monotonic() + 30
