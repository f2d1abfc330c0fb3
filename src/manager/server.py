"""The manager's Unix socket: a question per connection, and what gateways tell. Knows the protocol; the Manager knows the answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from loguru import logger

from src.errors import InternalError, ServiceError
from src.listening import listen
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
    ManagerRequest,
    Message,
    Metrics,
    ProtocolError,
    RequestEnded,
    Resolve,
    Switch,
    TokenGaps,
    Told,
    Unload,
    Unloaded,
    decode,
    encode,
)


class ManagerServer:
    def __init__(self, manager: Manager, reporter: Reporter, downloads: Downloads, exposition: Exposition) -> None:
        self._manager = manager
        self._reporter = reporter
        self._downloads = downloads
        self._exposition = exposition

    async def bind(self, path: str) -> None:
        self._server = await listen(path, self._connected)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await self._question(reader)
            if request:
                async for answer in self._answers(request):
                    writer.write(encode(answer))
                    await writer.drain()
        except (ConnectionError, ValueError):
            pass  # whoever asked is gone, or sent more than a line may hold
        except ProtocolError as error:
            logger.warning("A connection was closed: {}", error)
        except Exception:
            logger.exception("A question to the manager failed")
            with contextlib.suppress(OSError):
                writer.write(encode(Failed.of(InternalError("The server made a mistake; its log says which."))))
        finally:
            writer.close()

    async def _question(self, reader: asyncio.StreamReader) -> Message | None:
        """The first message that wants an answer; those before it are counted."""
        while line := await reader.readline():
            message: Message = decode(line, ManagerRequest | Told)
            if isinstance(message, RequestEnded):
                count.request_ended(message)
            elif isinstance(message, TokenGaps):
                count.token_gaps(message)
            else:
                return message
        return None

    async def _answers(self, request: Message) -> AsyncIterator[Message]:
        try:
            if isinstance(request, Download):
                async for state in self._downloads.follow(request):
                    yield state
                return
            if isinstance(request, Load) and request.progress:
                async for progress in self._manager.load_progress(request.model):
                    yield progress
            yield await self._answer(request)
        except ServiceError as error:
            yield Failed.of(error)

    async def _answer(self, request: Message) -> Message:
        manager = self._manager
        if isinstance(request, Resolve):
            return await manager.resolve(request.model)
        if isinstance(request, Load):
            return await manager.load(request.model)
        if isinstance(request, Unload):
            await manager.unload(request.model)
            return Unloaded(model=manager.library.name_of(request.model))
        if isinstance(request, Switch):
            return await manager.switch(request.model, request.before)
        if isinstance(request, AskDownloads):
            return DownloadList(downloads=self._downloads.list())
        if isinstance(request, AskPlan):
            return self._reporter.plan(request.model)
        if isinstance(request, AskMetrics):
            return Metrics(text=await self._exposition.text())
        assert isinstance(request, AskStatus)
        return await self._reporter.status(request.detail)
