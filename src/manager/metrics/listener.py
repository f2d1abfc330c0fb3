"""The metrics at an address of their own, which asks for no key: who connects there holds one of a few places, for some seconds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from loguru import logger

PLACES = 16  # with one more, the connection that came first ends
SECONDS = 10.0  # from a connection's first byte to its last; Prometheus' own default
HEAD_BYTES = 16 * 1024


class Listener:
    """One answer a connection."""

    def __init__(self, text: Callable[[], Awaitable[str]]) -> None:
        self._text = text
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], None] = {}  # in the order they came

    async def bind(self, host: str, port: int) -> None:
        """A port that is taken is logged: the service goes on."""
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=HEAD_BYTES)
        except OSError as error:
            logger.error("No metrics at METRICS_ADDRESS={}:{}: {}. Set it to a free address of this machine.", host, port, error.strerror)

    def close(self) -> None:
        """Take no further connections."""
        if self._server:
            self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= PLACES:
            first = next(iter(self._open))
            del self._open[first]
            first.cancel()
        self._open[task] = None
        try:
            await asyncio.wait_for(self._answer(reader, writer), SECONDS)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._open.pop(task, None)
            writer.transport.abort()  # what its client has not read by now is not waited for

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        is_question = head.startswith(b"GET ")
        body = (await self._text()).encode() if is_question else b""
        status = "200 OK" if is_question else "405 Method Not Allowed\r\nAllow: GET"
        kind = "text/plain; version=0.0.4; charset=utf-8"
        lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(lines.encode() + body)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
