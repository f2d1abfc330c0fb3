"""One request, pursued until it is answered: a runner that dies is a pause, and the next one goes on. Knows no HTTP.

Who killed the runner is told by its trials (src/runner/turnstile.py): a request that was on trial at its death.
"""

import socket
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from msgspec.structs import replace

from src.api import draining
from src.api.progress import Event, Progress
from src.client import Generation, ManagerClient
from src.errors import EngineCrashed, EngineUnavailable
from src.protocol import Finished, Generate, Message, ModelReady, OnTrial

CONNECT_TRIES = 20  # a runner may have been unloaded or have died between the manager's answer and our connection
NOTICE_SECONDS = 2.0  # the manager has noticed a death by then; a runner that still stands only closed the connection
FRUITLESS_TRIES = 6  # runners without a token from any of them
HARMLESS = 16  # tokens after which a process that was killed from outside was not killed for this request
LONG_HARMLESS = 256  # tokens after which what died before is forgotten
OUTSIDE = ("signal SIGKILL", "signal SIGTERM", "signal SIGINT", "signal SIGHUP")  # deaths that need not be a request's fault
GUILTY = 2


Asked = TypeVar("Asked", bound=Message)


def connect(
    manager: ManagerClient, model: str | None, ask: Callable[[ModelReady], Asked], deadline: float, client: socket.socket | None
) -> tuple[ModelReady, Asked, Generation]:
    """The model's runner, what it was asked, and its answer. Raises ServiceError, ClientGone."""
    for attempt in range(CONNECT_TRIES):
        ready = manager.resolve(model, deadline, client)
        asked = ask(ready)
        try:
            return ready, asked, Generation(ready, asked, deadline, client)
        except EngineUnavailable:
            if attempt == CONNECT_TRIES - 1:
                raise
            time.sleep(0.1)  # till the manager has noticed too
    raise AssertionError("unreachable")


def crashed(death: str) -> EngineCrashed:
    return EngineCrashed(f"The model's process died while it worked on this request, more than once, the last time by {death}.")


class Pursuit:
    """Iterate over its events; None among them means that none came for a while."""

    def __init__(self, manager: ManagerClient, deadline: float, client: socket.socket | None) -> None:
        """Before anything else, begin() or go_on_from()."""
        self._manager, self._deadline, self._client = manager, deadline, client
        self._generation: Generation | None = None
        self._on_trial = False
        self._computed = True  # since it was asked: one that waits for its trial is not
        self._deaths = self._strikes = 0

    def begin(self, model: str | None, ask: Callable[[ModelReady], Generate]) -> "Pursuit":
        """Returns once a runner has the request. Raises ServiceError, ClientGone."""
        self.ready, self.asked, self._generation = connect(self._manager, model, ask, self._deadline, self._client)
        self._progress = Progress(self.asked)
        return self

    def go_on_from(self, model: str, fingerprint: str, progress: Progress) -> "Pursuit":
        """What another process began, and did not end. The runner is looked for when the events are."""
        self.ready = ModelReady(model=model, socket="", engine="", fingerprint=fingerprint)
        self.asked, self._progress = progress.asked, progress
        return self

    def __iter__(self) -> Iterator[Event | None]:
        while True:
            try:
                yield from self._events()
                return
            except EngineUnavailable as error:
                self.close()
                if self._progress.fruitless >= FRUITLESS_TRIES:
                    raise
                lost = error
            yield from self._go_on(lost)

    def close(self) -> None:
        """Cancel it. Safe to call twice, and after the last event."""
        if self._generation:
            self._generation.close()

    def _events(self) -> Iterator[Event | None]:
        if self._generation is None:
            raise EngineUnavailable("The model's process cannot be reached.", retry_after=self.ready.back_in)
        for event in self._generation:
            if event is None:
                yield None
            elif isinstance(event, OnTrial):
                self._on_trial, self._computed = event.open, True
            else:
                yield from self._progress.push(event)
                if isinstance(event, Finished):
                    return

    def _go_on(self, lost: EngineUnavailable) -> Iterator[None]:
        """Hand the request to the runner that comes after the one that was lost."""
        self._generation = None
        before, ready = self.ready, (yield from self._successor())
        if self._progress.begun and ready.fingerprint != before.fingerprint:
            raise lost  # another version of the model would go on with another's tokens
        self.ready = ready
        known = bool(before.pid)  # else it is another process's request, and nobody has died
        if known and ready.pid != before.pid:
            self._blame(ready.predecessor or OUTSIDE[0])
        try:
            self._generation = Generation(ready, replace(self._progress.again(), deaths=self._deaths), self._deadline, self._client)
        except EngineUnavailable:
            time.sleep(0.1)  # it died meanwhile, and the next round asks again

    def _successor(self) -> Generator[None, None, ModelReady]:
        give_up, pause = time.monotonic() + NOTICE_SECONDS, 0.02
        while True:
            ready = yield from self._resolved()
            if ready.pid != self.ready.pid or time.monotonic() > give_up:
                return ready
            time.sleep(pause)
            pause = min(0.5, 2 * pause)

    def _resolved(self) -> Generator[None, None, ModelReady]:
        for attempt in range(CONNECT_TRIES):
            draining.refuse_after_cut()
            try:
                for ready in self._manager.resolving(self.ready.model, self._deadline, self._client):
                    if ready is not None:
                        return ready
                    yield None
            except EngineUnavailable:  # the manager died too: Gunicorn's master starts another
                if attempt == CONNECT_TRIES - 1:
                    raise
                time.sleep(0.1)
        raise AssertionError("unreachable")

    def _blame(self, death: str) -> None:
        """Raises EngineCrashed where it is this request that the runner died of."""
        if self._progress.drawn > LONG_HARMLESS:
            self._deaths = self._strikes = 0
        own = death not in OUTSIDE
        if self._on_trial:
            self._strikes += GUILTY if own and self._deaths else 1
        if self._computed and (own or (self._progress.fruitless and self._progress.drawn < HARMLESS)):
            self._deaths += 1
        self._on_trial, self._computed = False, not self._deaths
        if self._strikes >= GUILTY:
            raise crashed(death)
