"""A Unix socket that a manager or a runner listens on. Knows nothing of what is said there."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from loguru import logger

from src.peer import require_same_user
from src.protocol import MAX_LINE_BYTES
from src.protocol.buffers import widen

# Connections that may wait till the process takes them: with more, whoever connects would have to try again and again.
BACKLOG = 4096
LOOK_SECONDS = 1.0  # between two looks whether the path still leads here

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class UnixServer:
    """For this user alone. Where the path is gone, as after a system's cleaning of old files, it is bound again."""

    def __init__(self, path: str, connected: Connected) -> None:
        """`connected` is called for each connection."""
        self._path = path
        self._connected = connected

    async def start(self) -> None:
        """From here on it can be connected to. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        await self._bind()
        self._keeping = asyncio.create_task(self._keep())

    def unlink(self) -> None:
        """Nobody finds it any more; who has connected is still served."""
        self._keeping.cancel()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def close(self) -> None:
        """Take no further connections."""
        self._keeping.cancel()
        self._server.close()

    async def _bind(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._path)
        os.chmod(self._path, 0o600)
        # asyncio tries as many accepts at a time as its `backlog` says, also those that fail for want of a descriptor, and sets a
        # timer for each of them to try again.
        self._server = await asyncio.start_unix_server(self._admit, sock=listener, limit=MAX_LINE_BYTES, backlog=1)
        listener.listen(BACKLOG)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if os.path.lexists(self._path):
                continue
            logger.warning("{} was removed by another program: binding it again", self._path)
            old = self._server
            try:
                await self._bind()
            except OSError as error:
                logger.error("{} cannot be bound again: {}", self._path, error.strerror)
            else:
                old.close()

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            require_same_user(writer.get_extra_info("socket"))
        except OSError as error:
            logger.warning("A connection to {} was refused: {}", os.path.basename(self._path), error.strerror)
            writer.close()
            return
        widen(writer.get_extra_info("socket"))
        await self._connected(reader, writer)
