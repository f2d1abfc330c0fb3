"""One request to a model's runner, and its answer. A runner that dies is a pause: the next one continues."""

import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from src.api.generation.blame import OUTSIDE
from src.api.generation.progress import Event, Progress
from src.client.exchange import Generation
from src.client.manager import ManagerClient
from src.client.retry import Retry
from src.errors import EngineUnavailable
from src.protocol import Finished, Generate, Message, ModelReady

NOTICE_SECONDS = 2.0  # the manager has noticed a death by then; a runner that still stands only closed the connection
FRUITLESS_TRIES = 6  # further runners that are asked without anything new from any of them


class Caller(NamedTuple):
    """On whose behalf runners are asked."""

    manager: ManagerClient
    deadline: float  # in time.monotonic() seconds
    client: socket.socket | None  # the HTTP client's, to notice when it hangs up


class Strategy(Protocol):
    """What a retry depends on its request's kind for: Progress for text, a counter for the rest."""

    fruitless: int  # runners that were lost in a row without anything new from any of them

    @property
    def begun(self) -> bool:
        """Whether the rest has to come from the same version of the model."""

    def resume_request(self) -> Message:
        """What to ask another runner."""

    def runner_died(self, exit: str) -> None:
        """Raises EngineCrashed if the runner died of this request."""

    def push(self, event: Any) -> list[Any]:
        """What of it is new, in order."""


Asked = TypeVar("Asked", bound=Message)
Kind = TypeVar("Kind", bound=Strategy)
Result = TypeVar("Result")


def connect(
    caller: Caller, model: str | None, request_for: Callable[[ModelReady], Asked | None], among: Sequence[str] = ()
) -> Generator[None, None, tuple[ModelReady, Asked, Generation]]:
    """Hand a request to the model's runner: the one loop that waits for a runner or a manager to be there again.

    `request_for` makes the request for a runner; None: wait for another one. `among`: see ManagerClient.resolve. Yields None
    while it waits for the manager's answer. Raises ServiceError, ClientGone.
    """
    retry = Retry(caller.deadline, caller.client)
    while True:
        try:
            ready = yield from caller.manager.resolve(model, caller.deadline, caller.client, among)
        except EngineUnavailable as error:
            retry.wait(error)
            continue
        request = request_for(ready)
        if request is None:
            retry.wait()
            continue
        try:
            return ready, request, Generation(ready, request, caller.deadline, caller.client)
        except EngineUnavailable as error:
            retry.wait(error)


def returned(steps: Generator[None, None, Result]) -> Result:
    """What a generator returns, for a caller who has nobody to tell that it still waits."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


class Resumable(Generic[Kind]):
    """Iterate over the events of one answer; None among them means that none came for IDLE_SECONDS."""

    def __init__(
        self,
        caller: Caller,
        ready: ModelReady,
        strategy: Kind,
        generation: Generation | None = None,
        observe: Callable[[Any], None] = lambda event: None,
    ) -> None:
        """`ready`: the runner that was asked. `generation`: its answer; None where another process has asked, which is gone.
        `observe` is called with each event."""
        self.ready = ready
        self._caller, self._strategy, self._generation, self._observe = caller, strategy, generation, observe
        self._lost_at = 0.0
        self._unexplained = False  # the runner is lost, and the strategy does not know yet how it died

    def __iter__(self) -> Iterator[Any]:
        while True:
            if self._generation is None:
                self.ready, _, self._generation = yield from connect(self._caller, self.ready.model, self._resume_request)
            try:
                event = self._generation.receive()
            except EngineUnavailable as error:
                self._lose(error)
                continue
            if event is None:
                yield None
                continue
            for new in self._strategy.push(event):
                self._observe(new)
                yield new
            if isinstance(event, Finished):
                return

    def close(self) -> None:
        """Cancel it. Safe to call twice, and after the last event."""
        if self._generation:
            self._generation.close()

    def _lose(self, error: EngineUnavailable) -> None:
        self.close()
        if self._strategy.fruitless >= FRUITLESS_TRIES:
            raise error
        self._strategy.fruitless += 1
        self._generation, self._lost_at, self._unexplained = None, time.monotonic(), True

    def _resume_request(self, ready: ModelReady) -> Message | None:
        """For a runner that may be the successor of the one that was lost. Raises EngineCrashed, EngineUnavailable."""
        if ready.pid == self.ready.pid and time.monotonic() < self._lost_at + NOTICE_SECONDS:
            return None
        if self._strategy.begun and ready.fingerprint != self.ready.fingerprint:
            raise EngineUnavailable("The model's process ended, and the model has changed since. Send the request again.", retry_after=1)
        if self._unexplained and ready.pid != self.ready.pid:
            self._unexplained = False
            self._strategy.runner_died(ready.previous_exit or OUTSIDE[0])
        return self._strategy.resume_request()


class ResumableGeneration(Resumable[Progress]):
    """A request for text."""

    @classmethod
    def start(
        cls,
        caller: Caller,
        model: str | None,
        request_for: Callable[[ModelReady], Generate],
        *,
        among: Sequence[str] = (),
        observe: Callable[[Event], None] = lambda event: None,
    ) -> "ResumableGeneration":
        """Returns once a runner has the request. `model`: None: the default one. Raises ServiceError, ClientGone."""
        ready, request, generation = returned(connect(caller, model, request_for, among))
        return cls(caller, ready, Progress(request), generation, observe)

    @classmethod
    def resume(cls, caller: Caller, model: str, fingerprint: str, progress: Progress) -> "ResumableGeneration":
        """What another process began, and did not end. A runner is asked for the rest when the events are."""
        return cls(caller, ModelReady(model=model, socket="", engine="", fingerprint=fingerprint), progress)

    @property
    def request(self) -> Generate:
        """What the first runner was asked."""
        return self._strategy.asked

    @property
    def tokens_used(self) -> int:
        return self._strategy.tokens_used
