"""vLLM's engine cores of one model, each with all of its weights (data_parallel_size): which of them has which request.

vLLM's synchronous client starts all of them and hears all of them, but speaks to the one that it calls its core: here that is
set before it speaks. Its asynchronous client, which chooses by itself, would bring a loop of its own into the engine's thread.
"""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

from vllm.distributed import utils as distributed


class Copies:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._cores: list[bytes] = client.core_engines
        self._core_of: dict[int, bytes] = {}  # by request

    def __len__(self) -> int:
        return len(self._cores)

    def __iter__(self) -> Iterator[None]:
        """The client speaks to each in turn."""
        for core in self._cores:
            self._client.core_engine = core
            yield

    def enter(self, number: int) -> None:
        """The client speaks to the one that is to get the request: with the fewest; the first of them, where followers of one
        another find their prefix."""
        requests = Counter(self._core_of.values())
        self._client.core_engine = self._core_of[number] = min(self._cores, key=lambda core: requests[core])

    def leave(self, number: int) -> None:
        """The request has ended, or is to: the client speaks to the one that had it."""
        if core := self._core_of.pop(number, None):
            self._client.core_engine = core


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While vLLM starts its cores it opens a store for them to meet at, on all of the machine's addresses: here on the one it names."""
    create = distributed.create_tcp_store

    def create_bound(host: str, port: int, listen_socket: socket.socket | None = None, **given: Any) -> Any:
        if listen_socket is None and given.get("is_master"):
            listen_socket = socket.create_server((host, port))
            port = listen_socket.getsockname()[1]
        return create(host, port, listen_socket, **given)

    distributed.create_tcp_store = create_bound
    try:
        yield
    finally:
        distributed.create_tcp_store = create
