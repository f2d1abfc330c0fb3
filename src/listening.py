"""A Unix socket that a manager or a runner listens on. Knows nothing of what is said there."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable

from src.protocol import MAX_LINE_BYTES

# Connections that may wait till the process takes them: with more, whoever connects would have to try again and again.
BACKLOG = 4096


async def listen(path: str, connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> asyncio.Server:
    """For this user alone. `connected` is called for each connection."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    os.chmod(path, 0o600)
    # asyncio tries as many accepts at a time as its `backlog` says, also those that fail for want of a descriptor, and sets a
    # timer for each of them to try again.
    server = await asyncio.start_unix_server(connected, sock=listener, limit=MAX_LINE_BYTES, backlog=1)
    listener.listen(BACKLOG)
    return server
