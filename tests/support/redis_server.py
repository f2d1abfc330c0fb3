"""A real redis-server for tests, on a free port; nothing of it is kept."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import program
from tests.support.server import free_port, wait_until


class Redis:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        wait_until(self._answers, what="redis-server")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def pause(self, signal: int) -> None:
        """SIGSTOP: it is there and does not answer; SIGCONT."""
        self._process.send_signal(signal)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
        return False


@pytest.fixture
def redis(tmp_path) -> Iterator[Redis]:
    running = Redis(tmp_path)
    yield running
    running.stop()
