"""One answer that is kept: its writer asks the runner, its readers follow."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator
from typing import ClassVar, NamedTuple

import gevent
from loguru import logger

from src.api.generation.progress import Event, Progress
from src.api.generation.replay.log import Log, LogHeader, LogRequest
from src.api.generation.resumable import ResumableGeneration
from src.client.exchange import IDLE_SECONDS
from src.client.hangup import has_hung_up
from src.errors import ClientGone, EngineUnavailable, InternalError, InvalidValue, RequestTimeout, ServiceError
from src.protocol import Failed, Finished, ProtocolError

LOOK_SECONDS = 0.5  # between two looks at whether anybody is still there
POLL_SECONDS = 0.05  # between two looks for lines of another worker


class Recipe(NamedTuple):
    """How an answer is computed."""

    begin: Callable[[], tuple[ResumableGeneration, LogRequest]] | None  # None where only the log knows the request
    resume: Callable[[LogRequest, Progress], ResumableGeneration]
    most_bytes: int  # of all answers of one owner that are being written; of all owners twice as many
    patience: float  # seconds it is computed with nobody following
    hold: Callable[[], Callable[[int], None]]  # called by whoever computes it, and its result when that has ended, with the tokens used


class Answer:
    """A client's view of a kept answer."""

    def __init__(self, log: Log, header: LogHeader, recipe: Recipe) -> None:
        self.header = header
        self.request: LogRequest | None = None
        self._log, self._recipe = log, recipe

    def events(
        self, deadline: float, client: socket.socket | None, observe: Callable[[Event], None] = lambda event: None
    ) -> Generator[Event | None, None, None]:
        """To be called once. None among the events means that none came for IDLE_SECONDS; `observe` is called with each other one.
        `request` is known with the first. Raises ServiceError, ClientGone."""
        with contextlib.closing(self._log) as log, log.reading():
            look_at = time.monotonic()
            idle_at = look_at + IDLE_SECONDS
            while True:
                lines = log.read()
                for line in lines:
                    if isinstance(line, LogRequest):
                        self.request = line
                    elif isinstance(line, Failed):
                        raise line.error()
                    elif not isinstance(line, LogHeader):
                        observe(line)
                        yield line
                        if isinstance(line, Finished):
                            return
                now = time.monotonic()
                if lines:
                    idle_at = now + IDLE_SECONDS
                elif now >= deadline:
                    raise RequestTimeout("The request took longer than its timeout or REQUEST_TIMEOUT allows. Ask for less.")
                elif now >= idle_at:
                    idle_at = now + IDLE_SECONDS
                    yield None
                if now >= look_at:
                    look_at = now + LOOK_SECONDS
                    self._look(client)
                if lines:
                    gevent.sleep(0)  # there may be megabytes more
                else:
                    log.wait(POLL_SECONDS)

    def _look(self, client: socket.socket | None) -> None:
        if client is not None and has_hung_up(client):
            raise ClientGone
        try:
            orphaned = self._log.is_orphaned() and not self._log.has_ended()
        except FileNotFoundError:
            raise EngineUnavailable("The answer was given up meanwhile. Ask again.", retry_after=1) from None
        if orphaned:
            Writer(Log(self._log.folder), self._recipe).start()


class Writer:
    """Writes an answer's log, in a greenlet of its own. Of several that are started one writes."""

    _growing: ClassVar[Counter[str]] = Counter()  # bytes of the logs that this process writes, by their owners

    def __init__(self, log: Log, recipe: Recipe) -> None:
        self._log, self._recipe = log, recipe
        self._generation: ResumableGeneration | None = None
        self._owner, self._size = "", 0

    def start(self) -> None:
        if not self._log.take_over():
            self._log.close()
            return
        gevent.spawn(self._supervise, self._recipe.hold())

    def _supervise(self, settle: Callable[[int], None]) -> None:
        """Until the log is written, or nobody has followed it for as long as the recipe allows."""
        work, alone_since = gevent.spawn(self._write), None
        while not work.ready():
            work.join(LOOK_SECONDS)
            now = time.monotonic()
            alone_since = None if self._log.has_readers() else alone_since or now
            if alone_since and now - alone_since >= self._recipe.patience and not work.ready():
                work.kill()
                self._log.remove()
        if work.exception:  # our mistake: it has to end in an answer too
            logger.opt(exception=work.exception).error("An answer could not be kept")
            self._fail(InternalError("The server made a mistake; its log says which."))
        settle(self._generation.tokens_used if self._generation else 0)
        self._growing[self._owner] -= self._size
        if not self._growing[self._owner]:
            del self._growing[self._owner]
        self._log.release()
        self._log.close()

    def _write(self) -> None:
        try:
            self._generation = generation = self._begin()
            if generation is None:
                return
            with contextlib.closing(generation):
                for event in generation:
                    if event is not None:
                        self._log.append(event)
                        self._check_size()
        except ServiceError as error:
            self._fail(error)
        except (OSError, ProtocolError) as error:  # the disk is full, or lost what was written
            logger.error("An answer could not be kept: {}", error)
            self._log.remove()  # its followers get an error that asks them to try again

    def _check_size(self) -> None:
        """Raises InvalidValue."""
        growing, most = self._growing, self._recipe.most_bytes
        growing[self._owner] += self._log.size - self._size
        self._size = self._log.size
        if growing[self._owner] > most or growing.total() > 2 * most:
            told = f"IDEMPOTENCY_MAX_BYTES allows {2 * most} bytes, half of them for one API key"
            raise InvalidValue(
                f"The answer has become too large to be kept for its Idempotency-Key: {told}. Ask for less, or leave out the header.",
                "Idempotency-Key",
            )

    def _begin(self) -> ResumableGeneration | None:
        """None where the answer is whole."""
        lines = self._log.cut_to_whole()
        self._owner = self._log.first_line().owner
        request = next((line for line in lines if isinstance(line, LogRequest)), None)
        if isinstance(lines[-1], Finished):
            return None
        if request:
            progress = Progress(request.request)
            for line in lines:
                if isinstance(line, Event):
                    progress.push(line)
            return self._recipe.resume(request, progress)
        if self._recipe.begin is None:
            raise EngineUnavailable("The answer was lost before it began. Ask again.", retry_after=1)
        generation, request = self._recipe.begin()
        self._log.append(request)
        return generation

    def _fail(self, error: ServiceError) -> None:
        """For those who follow, and for nobody else: the next request with this key gets another try."""
        with contextlib.suppress(OSError):  # without a place for it, the followers learn only that the log is gone
            self._log.append(Failed.of(error))
        self._log.remove()
