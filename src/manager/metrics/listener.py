"""The metrics at an address of their own, which asks for no key: who connects there holds one of a few places, for some seconds.

On a loopback address no web page reads them by a name of its own that was made to lead there: the Host header is looked at.
"""

import asyncio
import contextlib
import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection

from loguru import logger

from src.host_names import is_nobodys, name_of

PLACES = 16  # with one more, the connection that came first ends
SECONDS = 10.0  # from a connection's first byte to its last; Prometheus' own default
HEAD_BYTES = 16 * 1024
_HOST = re.compile(rb"\r\nhost[ \t]*:([^\r\n]*)", re.IGNORECASE)


class Listener:
    """One answer a connection."""

    def __init__(self, text: Callable[[], Awaitable[str]], hosts: Collection[str] = ()) -> None:
        """`hosts`: names that may be asked for on loopback beside this machine's own, in lower case; "*": any."""
        self._text, self._hosts = text, hosts
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
        address, *_ = writer.get_extra_info("sockname")
        if not head.startswith(b"GET "):
            status, body = "405 Method Not Allowed\r\nAllow: GET", b""
        elif ipaddress.ip_address(address.partition("%")[0]).is_loopback and not self._may_be_asked_for(head):
            status, body = "403 Forbidden", b"Host header not allowed. Use localhost, or add this name to ALLOWED_HOSTS.\n"
        else:
            status, body = "200 OK", (await self._text()).encode()
        kind = "text/plain; version=0.0.4; charset=utf-8"
        lines = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(lines.encode() + body)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _may_be_asked_for(self, head: bytes) -> bool:
        """By every Host header of this request."""
        names = [name_of(host.decode("latin-1")) for host in _HOST.findall(head)]
        return "*" in self._hosts or all(is_nobodys(name) or name in self._hosts for name in names)
