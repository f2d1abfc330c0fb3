"""The manager's answers to a gateway's questions, each asked on a connection of its own."""

import contextlib
import socket
import time
from collections.abc import Generator, Sequence
from typing import Any

from src.client.exchange import Exchange, unavailable
from src.client.retry import Retry
from src.errors import EngineUnavailable
from src.protocol import (
    AskDownloads,
    AskMetrics,
    AskPlan,
    AskStatus,
    Download,
    DownloadList,
    DownloadProgress,
    Load,
    LoadProgress,
    ManagerEvent,
    Message,
    Metrics,
    ModelPlan,
    ModelReady,
    Resolve,
    ServiceStatus,
    Switch,
    Unload,
)

STATUS_SECONDS = 5.0
METRICS_SECONDS = 10.0  # it has to ask every runner


class ManagerClient:
    """Questions to the manager, each on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def resolve(
        self, model: str | None, deadline: float, client: socket.socket | None = None, among: Sequence[str] = ()
    ) -> Generator[None, None, ModelReady]:
        """Returns the runner of a model. Waits while the model loads, as long as the manager allows, and yields None every
        IDLE_SECONDS. `among`: names and aliases of the models that may be found; empty: all.

        Asks only once: the caller has to retry for a runner that is gone, and does so for the manager too. Raises ServiceError,
        ClientGone.
        """
        with contextlib.closing(self._exchange(Resolve(model=model, among=tuple(among)), deadline, client)) as exchange:
            while True:
                ready: ModelReady | None = exchange.receive(ManagerEvent)
                if ready is not None:
                    return ready
                yield None

    def load(self, model: str, deadline: float, client: socket.socket | None = None) -> ModelReady:
        ready: ModelReady = self._ask(Load(model=model), deadline, client)
        return ready

    def load_progress(self, model: str, deadline: float, client: socket.socket | None = None) -> Generator[LoadProgress | None, None, None]:
        """How far the load is, till it is through; None among it when nothing has changed for IDLE_SECONDS."""
        for message in self._messages(Load(model=model, progress=True), deadline, client):
            if isinstance(message, ModelReady):
                return
            yield message

    def unload(self, model: str, deadline: float, client: socket.socket | None = None) -> None:
        """Returns once the model's memory is free."""
        self._ask(Unload(model=model), deadline, client)

    def switch(self, model: str, before: str | None, deadline: float, client: socket.socket | None = None) -> ModelReady:
        ready: ModelReady = self._ask(Switch(model=model, before=before), deadline, client)
        return ready

    def download(
        self, request: Download, deadline: float, client: socket.socket | None = None
    ) -> Generator[DownloadProgress | None, None, None]:
        """How far the download is, till it is done; None among it when nothing has changed for IDLE_SECONDS."""
        for message in self._messages(request, deadline, client):
            yield message
            if isinstance(message, DownloadProgress) and message.stage == "done":
                return

    def downloads(self, deadline: float) -> list[DownloadProgress]:
        """Those that run, and those that ended lately."""
        answer: DownloadList = self._ask(AskDownloads(), deadline, None)
        return answer.downloads

    def plan(self, model: str, deadline: float) -> ModelPlan:
        plan: ModelPlan = self._ask(AskPlan(model=model), deadline, None)
        return plan

    def status(self, *, detail: bool = False) -> ServiceStatus:
        status: ServiceStatus = self._ask(AskStatus(detail=detail), time.monotonic() + STATUS_SECONDS, None)
        return status

    def metrics(self, models: list[str] | None = None) -> str:
        """In Prometheus' text format; with `models`, without the figures of others."""
        metrics: Metrics = self._ask(AskMetrics(models=models), time.monotonic() + METRICS_SECONDS, None)
        return metrics.text

    def _ask(self, request: Message, deadline: float, client: socket.socket | None) -> Any:
        with contextlib.closing(self._messages(request, deadline, client)) as messages:
            return next(message for message in messages if message is not None)

    def _messages(self, request: Message, deadline: float, client: socket.socket | None) -> Generator[Any, None, None]:
        """What answers a question, which is asked again where the manager is gone: Gunicorn's master starts another."""
        retry = Retry(deadline, client)
        while True:
            try:
                with contextlib.closing(self._exchange(request, deadline, client)) as exchange:
                    while True:
                        yield exchange.receive(ManagerEvent)
            except EngineUnavailable as error:
                retry.wait(error)

    def _exchange(self, request: Message, deadline: float, client: socket.socket | None) -> Exchange:
        try:
            return Exchange(self._path, request, deadline, client)
        except OSError as error:
            raise unavailable(error, "The server's manager cannot be reached. Restart the server.", 5) from error
