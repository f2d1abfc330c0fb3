"""vLLM's engine cores of one model, each with all of its weights (data_parallel_size): which of them has which request.

vLLM's synchronous client starts all of them and hears all of them, but speaks to the one that it calls its core: here that is
set before it speaks. Its asynchronous client, which chooses by itself, would bring a loop of its own into the engine's thread.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from vllm.distributed import utils as distributed


class Copies:
    def __init__(self, client: Any) -> None:
        self._client = client
        self._requests: dict[bytes, set[int]] = {core: set() for core in client.core_engines}

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[None]:
        """The client speaks to each in turn."""
        for core in self._requests:
            self._client.core_engine = core
            yield

    def choose(self, number: int) -> None:
        """The client speaks to the one that is to get the request: with the fewest; the first of them, where followers of one
        another find their prefix."""
        core = min(self._requests, key=lambda core: len(self._requests[core]))
        self._requests[core].add(number)
        self._client.core_engine = core

    def turn_to(self, number: int) -> None:
        """The client speaks to the one that has the request, if any has."""
        self._client.core_engine = next((core for core, numbers in self._requests.items() if number in numbers), self._client.core_engine)

    def forget(self, number: int) -> None:
        """It has ended."""
        for numbers in self._requests.values():
            numbers.discard(number)


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
