"""HTTP as cheap as it gets: while a workload runs, what arrives is kept with its time and not looked at. Knows no workload.

The client shares its cores with the servers it measures. An asyncio protocol and one connection per request (some servers close
a connection after a streamed answer without having said so) cost less than any client library; `recording` reads it all later.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

import h11
import msgspec

from tools.bench.recording import read_body

TIMEOUT = 1200.0  # seconds for one request


class Exchange(asyncio.Protocol):
    """One request on a connection of its own. Times are time.perf_counter() seconds."""

    def __init__(self, request: bytes, asked: int = 0, role: str = "") -> None:
        """`asked` is the number of completion tokens that were asked for; `role` sets requests of a workload apart."""
        self.request = request
        self.asked = asked
        self.role = role
        self.sent = time.perf_counter()
        self.pieces: list[tuple[float, bytes]] = []
        self.cut: float | None = None  # when this side hung up
        self.failure: str | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counted = self._events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self.cut is None:
            self.failure = f"{type(error).__name__}: {error}"
        if not self._ended.done():
            self._ended.set_result(None)

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.close()
        if not self._ended.done():
            self._ended.set_result(None)

    def hang_up(self) -> None:
        """Close the connection in the middle of the answer, as a reader who goes away does."""
        self.cut = time.perf_counter()
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def ended(self) -> bool:
        return self._ended.done()

    def events(self) -> int:
        """Roughly how many server-sent events have come: good enough to wait for."""
        self._events += sum(piece.count(b"data: {") for _, piece in self.pieces[self._counted :])
        self._counted = len(self.pieces)
        return self._events

    async def end(self) -> None:
        """Until the answer is complete, the connection has failed, or the time is up."""
        try:
            await asyncio.wait_for(asyncio.shield(self._ended), TIMEOUT)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            self.fail(f"no complete answer within {TIMEOUT:.0f} s")


class Server:
    """One OpenAI-compatible server."""

    def __init__(self, name: str, url: str, model: str, *, seeds: bool = True) -> None:
        """`url` with or without /v1. `seeds`: whether requests carry one."""
        self.name = name
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self._seeds = seeds
        parts = urlsplit(self.url)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._path = parts.path

    async def chat(self, messages: list[dict[str, str]], tokens: int, seed: int, role: str = "") -> Exchange:
        """Ask for a streamed answer of exactly so many tokens. Returns once it is asked for; await its end()."""
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": tokens,
            **({"seed": seed} if self._seeds else {}),
            "temperature": 0.8,
            "top_k": 40,
            "top_p": 0.95,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return await self.post("/v1/chat/completions", msgspec.json.encode(body), asked=tokens, role=role)

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None, asked: int = 0, role: str = "") -> Exchange:
        """Returns once it is asked; await its end()."""
        exchange = Exchange(self._request("POST", path, body, headers or {}), asked, role)
        await self._connect(exchange)
        return exchange

    async def get(self, path: str) -> Any:
        """The decoded JSON at `path`, or None where there is none."""
        exchange = Exchange(self._request("GET", path, b"", {}))
        await self._connect(exchange)
        await exchange.end()
        with contextlib.suppress(msgspec.DecodeError, h11.RemoteProtocolError):
            status, body = read_body(exchange.pieces)
            return msgspec.json.decode(body) if status == 200 else None

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        head = f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    def _connect(self, exchange: Exchange) -> Awaitable[None]:
        return _open(exchange, self._host, self._port, self._tls)


async def _open(exchange: Exchange, host: str, port: int, tls: bool) -> None:
    try:
        await asyncio.get_running_loop().create_connection(lambda: exchange, host, port, ssl=tls or None)
    except OSError as error:
        exchange.fail(f"{type(error).__name__}: {error}")
