"""One answer that is kept: its writer asks the runner, its followers read. Knows no HTTP but the client's socket."""

import contextlib
import select
import socket
import time
from collections.abc import Callable, Generator

import gevent
from loguru import logger

from src.api.progress import Progress
from src.api.pursuit import Pursuit
from src.api.replay.log import Asked, Log, Opened
from src.client import IDLE_SECONDS
from src.errors import ClientGone, EngineUnavailable, InternalError, RequestTimeout, ServiceError
from src.protocol import Delta, Ended, Failed, Finished, ProtocolError, Started

LOOK_SECONDS = 0.5  # between two looks at whether anybody is still there
POLL_SECONDS = 0.05  # between two looks for lines of another worker
Event = Started | Delta | Ended | Finished

Begin = Callable[[], tuple[Pursuit, Asked]]  # ask a runner
GoOn = Callable[[Asked, Progress], Pursuit]  # ask it for the rest


class Answer:
    """A client's view of a kept answer. Iterate over its events, once; None among them: none came for a while."""

    def __init__(self, log: Log, opened: Opened, begin: Begin | None, go_on: GoOn, patience: float) -> None:
        """`begin` is None where only the log knows the request. `patience`: seconds it goes on with nobody following."""
        self.opened = opened
        self.asked: Asked | None = None
        self._log, self._begin, self._go_on, self._patience = log, begin, go_on, patience

    def events(self, deadline: float, client: socket.socket | None) -> Generator[Event | None, None, None]:
        """Raises ServiceError, ClientGone. `asked` is there with the first event."""
        with contextlib.closing(self._log) as log, log.reading():
            look_at = time.monotonic()
            idle_at = look_at + IDLE_SECONDS
            while True:
                lines = log.read()
                for line in lines:
                    if isinstance(line, Asked):
                        self.asked = line
                    elif isinstance(line, Failed):
                        raise line.error()
                    elif not isinstance(line, Opened):
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
                if not lines:
                    log.wait(POLL_SECONDS)

    def _look(self, client: socket.socket | None) -> None:
        if client is not None and _hung_up(client):
            raise ClientGone
        try:
            orphaned = self._log.is_orphaned()
        except FileNotFoundError:
            raise EngineUnavailable("The answer was given up meanwhile. Ask again.", retry_after=1) from None
        if orphaned:
            Writer(Log(self._log.folder), self._begin, self._go_on, self._patience).start()


class Writer:
    """Writes an answer's log, in a greenlet of its own. Of several that are started one writes."""

    def __init__(self, log: Log, begin: Begin | None, go_on: GoOn, patience: float) -> None:
        self._log, self._begin, self._go_on, self._patience = log, begin, go_on, patience

    def start(self) -> None:
        if not self._log.take_over():
            self._log.close()
            return
        gevent.spawn(self._keep)

    def _keep(self) -> None:
        """Until it is written, or nobody has followed it for so long."""
        work, alone_since = gevent.spawn(self._write), None
        while not work.ready():
            work.join(LOOK_SECONDS)
            now = time.monotonic()
            alone_since = None if self._log.has_readers() else alone_since or now
            if alone_since and now - alone_since >= self._patience and not work.ready():
                work.kill()
                self._log.remove()
        if work.exception:  # our mistake: it is to end in an answer too
            logger.opt(exception=work.exception).error("An answer could not be kept")
            self._fail(InternalError("The server made a mistake; its log says which."))
        self._log.release()
        self._log.close()

    def _write(self) -> None:
        try:
            if (pursuit := self._pursuit()) is None:
                return
            try:
                for event in pursuit:
                    if event is not None:
                        self._log.append(event)
            finally:
                pursuit.close()
        except ServiceError as error:
            self._fail(error)
        except (OSError, ProtocolError) as error:  # the disk is full, or lost what was written
            logger.error("An answer could not be kept: {}", error)
            self._log.remove()  # who follows it is told to ask again

    def _pursuit(self) -> Pursuit | None:
        """None where the answer is whole."""
        lines = self._log.cut_to_whole()
        asked = next((line for line in lines if isinstance(line, Asked)), None)
        if isinstance(lines[-1], Finished):
            return None
        if asked:
            progress = Progress(asked.request)
            for line in lines:
                if isinstance(line, Event):
                    progress.push(line)
            return self._go_on(asked, progress)
        if self._begin is None:
            raise EngineUnavailable("The answer was lost before it began. Ask again.", retry_after=1)
        pursuit, asked = self._begin()
        self._log.append(asked)
        return pursuit

    def _fail(self, error: ServiceError) -> None:
        """Told to those who follow, and to nobody else: who asks again is to have another try."""
        with contextlib.suppress(OSError):  # without a place for it they are told that much
            self._log.append(Failed.of(error))
        self._log.remove()


def _hung_up(client: socket.socket) -> bool:
    poll = select.poll()
    poll.register(client, select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except ValueError:  # TLS: told by the next write
        return False
    except OSError:
        return True
