"""The manager's Unix socket: one question per connection. Knows the protocol; the Manager knows the answers."""

import asyncio
import contextlib
import os

from loguru import logger

from src.errors import InternalError, ServiceError
from src.manager.manager import Manager
from src.protocol import MAX_LINE_BYTES, AskStatus, Failed, Load, ManagerEvent, ManagerRequest, ProtocolError, Resolve, decode, encode


class ManagerServer:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def bind(self, path: str) -> None:
        self._server = await asyncio.start_unix_server(self._connected, path, limit=MAX_LINE_BYTES)
        os.chmod(path, 0o600)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line:
                writer.write(encode(await self._answer(decode(line, ManagerRequest))))
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

    async def _answer(self, request: Resolve | Load | AskStatus) -> ManagerEvent:
        try:
            if isinstance(request, Resolve):
                return await self._manager.resolve(request.model)
            if isinstance(request, Load):
                return await self._manager.load(request.model)
            return await self._manager.status(request.detail)
        except ServiceError as error:
            return Failed.of(error)
