"""The manager's Unix socket: one question a connection, answered by the Manager, and telemetry, which is counted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from loguru import logger

from src.errors import InternalError, ServiceError
from src.manager.downloads import Downloads
from src.manager.manager import Manager
from src.manager.metrics import count
from src.manager.metrics.exposition import Exposition
from src.manager.report import Reporter
from src.protocol import (
    AskDownloads,
    AskMetrics,
    AskPlan,
    AskStatus,
    Download,
    DownloadList,
    Failed,
    Load,
    LoadProgress,
    ManagerRequest,
    Message,
    Metrics,
    ModelPlan,
    ModelReady,
    ProtocolError,
    RequestEnded,
    Resolve,
    ServiceStatus,
    Switch,
    Telemetry,
    TokenGaps,
    Unload,
    Unloaded,
    decode,
    encode,
)
from src.protocol.listen import UnixServer

Answer = Callable[[Any], AsyncIterator[Message]]


class ManagerServer:
    def __init__(self, manager: Manager, reporter: Reporter, downloads: Downloads, exposition: Exposition) -> None:
        self._manager = manager
        self._reporter = reporter
        self._downloads = downloads
        self._exposition = exposition
        self.answers: dict[type[Message], Answer] = {
            Resolve: _single(self._resolve),
            Load: self._load,
            Unload: _single(self._unload),
            Switch: _single(self._switch),
            Download: downloads.follow,
            AskDownloads: _single(self._list_downloads),
            AskPlan: _single(self._plan),
            AskStatus: _single(self._status),
            AskMetrics: _single(self._metrics),
        }
        self.counters: dict[type[Message], Callable[[Any], None]] = {
            RequestEnded: count.request_ended,
            TokenGaps: count.token_gaps,
        }

    async def bind(self, path: str) -> None:
        self._server = UnixServer(path, self._connected)
        await self._server.start()

    def close(self) -> None:
        """Take no further connections."""
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if request := await self._receive(reader):
                async for answer in self._answer(request):
                    writer.write(encode(answer))
                    await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the gateway has hung up, or sent a line longer than MAX_LINE_BYTES
        except ProtocolError as error:
            logger.warning("A connection was closed: {}", error)
        except Exception:
            logger.exception("A request to the manager failed")
            with contextlib.suppress(OSError):
                writer.write(encode(Failed.of(InternalError("Internal error in the server's manager. See errors.log."))))
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader) -> Message | None:
        """The first message that wants an answer; those before it are counted."""
        while line := await reader.readline():
            message: Message = decode(line, ManagerRequest | Telemetry)
            if counter := self.counters.get(type(message)):
                counter(message)
            else:
                return message
        return None

    async def _answer(self, request: Message) -> AsyncIterator[Message]:
        try:
            async for message in self.answers[type(request)](request):
                yield message
        except ServiceError as error:
            yield Failed.of(error)

    async def _resolve(self, request: Resolve) -> ModelReady:
        return await self._manager.resolve(request.model, request.among)

    async def _load(self, request: Load) -> AsyncIterator[LoadProgress | ModelReady]:
        if not request.progress:
            yield await self._manager.load(request.model)
            return
        async for message in self._manager.load_progress(request.model):
            yield message

    async def _unload(self, request: Unload) -> Unloaded:
        return Unloaded(model=await self._manager.unload(request.model))

    async def _switch(self, request: Switch) -> ModelReady:
        return await self._manager.switch(request.model, request.before)

    async def _list_downloads(self, request: AskDownloads) -> DownloadList:
        return DownloadList(downloads=self._downloads.list())

    async def _plan(self, request: AskPlan) -> ModelPlan:
        return await self._reporter.plan(request.model)

    async def _status(self, request: AskStatus) -> ServiceStatus:
        return await self._reporter.status(request.detail)

    async def _metrics(self, request: AskMetrics) -> Metrics:
        return Metrics(text=await self._exposition.text(request.models))


def _single(ask: Callable[[Any], Awaitable[Message]]) -> Answer:
    """For a request that one message answers."""

    async def answer(request: Message) -> AsyncIterator[Message]:
        yield await ask(request)

    return answer
