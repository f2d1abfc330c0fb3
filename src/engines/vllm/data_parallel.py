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
        self.cores: list[bytes] = client.core_engines
        self._core_of: dict[int, bytes] = {}  # by request

    @contextlib.contextmanager
    def core_for(self, number: int) -> Iterator[None]:
        """Inside, the client speaks to the core that has the request. A new request goes to the core with the fewest, of several
        to the first: requests that follow one another find their prefix there."""
        if number not in self._core_of:
            requests = Counter(self._core_of.values())
            self._core_of[number] = min(self.cores, key=lambda core: requests[core])
        with self.speaking_to(self._core_of[number]):
            yield

    @contextlib.contextmanager
    def speaking_to(self, core: bytes) -> Iterator[None]:
        """Inside, the client speaks to this core."""
        before, self._client.core_engine = self._client.core_engine, core
        try:
            yield
        finally:
            self._client.core_engine = before

    def forget(self, number: int) -> None:
        """The request has ended. Unknown ones are ignored."""
        self._core_of.pop(number, None)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While vLLM starts its cores it opens a store for them to meet at, on all of the machine's addresses: here on the one it names."""
    create = distributed.create_tcp_store

    def create_bound(host: str, port: int, listen_socket: socket.socket | None = None, **options: Any) -> Any:
        if listen_socket is None and options.get("is_master"):
            listen_socket = socket.create_server((host, port))
            port = listen_socket.getsockname()[1]
        return create(host, port, listen_socket, **options)

    distributed.create_tcp_store = create_bound
    try:
        yield
    finally:
        distributed.create_tcp_store = create
