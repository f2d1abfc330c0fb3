"""How much of a stream a Unix socket holds till its reader takes it. Knows nothing of what is said there."""

import contextlib
import socket
from typing import Protocol

BYTES = 128 * 1024  # each way. Linux gives more by itself, macOS 8 KiB: every few lines of a stream would wait for their reader


class HasOptions(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockopt(self, level: int, optname: int, /) -> int: ...

    def setsockopt(self, level: int, optname: int, value: int, /) -> None: ...


def widen(connection: HasOptions) -> None:
    """Where the system gives less. Its own bound wins."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            if connection.getsockopt(socket.SOL_SOCKET, option) < BYTES:
                connection.setsockopt(socket.SOL_SOCKET, option, BYTES)
