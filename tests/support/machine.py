"""A manager and its runners, scripted: each runner answers one request and is gone, and the manager names the next."""

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from src.api.generation.resumable import Caller
from src.client.manager import ManagerClient
from src.protocol import ManagerRequest, ModelReady, Resolve, encode
from tests.support.peer import Peer, sends, soon


class Machine:
    """A manager, and runners one after another, each with what it answers before it is gone. `exits`: how those before died."""

    def __init__(self, folder: Path, runners: list[Callable | None], exits: list[str | None] | None = None, fingerprints: str = "") -> None:
        self.requests: list[object] = []
        self.resolved: list[Resolve] = []
        self._folder, self._runners = folder, runners
        self._exits = exits or [None] * len(runners)
        self._fingerprints = fingerprints or "f" * len(runners)
        self._now = 0  # the runner that is there
        self._manager = Peer(folder / "manager.sock", self._resolve, ManagerRequest)
        self._stack = contextlib.ExitStack()

    def ready(self, number: int) -> ModelReady:
        return ModelReady(
            model="m",
            socket=str(self._folder / f"{number}.sock"),
            engine="echo",
            fingerprint=self._fingerprints[number],
            pid=100 + number,
            previous_exit=self._exits[number],
        )

    def caller(self, deadline: float | None = None, client: socket.socket | None = None) -> Caller:
        return Caller(ManagerClient(self._manager.path), deadline or soon(), client)

    def _resolve(self, connection: socket.socket) -> None:
        self.resolved.append(self._manager.requests[-1])
        with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
            connection.sendall(encode(self.ready(min(self._now, len(self._runners) - 1))))

    def _runner(self, number: int, answer: Callable) -> Peer:
        def act(connection: socket.socket) -> None:
            self.requests.append(peer.requests[-1])
            answer(connection)
            self._now = max(self._now, number + 1)

        peer = Peer(self._folder / f"{number}.sock", act)
        return peer

    def __enter__(self) -> "Machine":
        self._stack.enter_context(self._manager)
        for number, answer in enumerate(self._runners):
            if answer is not None:
                self._stack.enter_context(self._runner(number, answer))
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()


def says(*events: object) -> Callable:
    return sends(*map(encode, events))
