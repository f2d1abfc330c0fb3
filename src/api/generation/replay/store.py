"""The folder of logs: found by key or by a completion's id, bounded by age, number and bytes."""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import flask

from src.api.generation.replay.log import FIRST_LINE_BYTES, Log, LogHeader
from src.api.generation.shares import Kept, surplus
from src.errors import IdempotencyKeyReused, InvalidValue, NotFound, TooManyRequests
from src.protocol import ProtocolError

NAME_LENGTH = 24  # hexadecimal digits of an id that are its log's name
SHARE_LENGTH = 8  # the first of them, which an owner's logs have in common
OWN_LENGTH = 8  # those that are its own: a key may be used again once its answer is forgotten
TIDY_SECONDS = 1.0
YOUNG_SECONDS = 1.0  # a log that was just made has no writer yet


class Store:
    def __init__(self, folder: Path, seconds: float, answers: int, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        """At most so many ended answers, none older than `seconds`, and so many bytes in all, running ones included. `clock`: seconds
        between two tidyings."""
        self._folder, self._answers, self._size = folder, answers, size
        self._seconds = max(seconds, YOUNG_SECONDS)
        self._clock = clock
        self._tidied_at = -TIDY_SECONDS
        self._ended: dict[int, Kept] = {}  # by the inode of its folder: to look at each takes its time

    def open(
        self, owner: str, key: str, route: str, digest: str, prefix: str, stream: bool, request_bytes: int = 0
    ) -> tuple[Log, LogHeader, bool]:
        """The log of a key, and whether it is a new one. Raises IdempotencyKeyReused where the key stands for another request, and
        TooManyRequests or InvalidValue where there is no room for it."""
        self._tidy()
        name = _name(owner, key)
        is_new = False
        while True:
            if log := self._at(name):
                header = log.first_line()
                if header.digest != digest:
                    log.close()
                    raise IdempotencyKeyReused("This Idempotency-Key was used for another request. Take a new key for each.")
                return log, header, is_new
            header = LogHeader(
                id=f"{prefix}{name}{uuid4().hex[:OWN_LENGTH]}",
                created=int(time.time()),
                owner=owner,
                digest=digest,
                route=route,
                stream=stream,
                request_bytes=request_bytes,
            )
            self._make_room(name[:SHARE_LENGTH], request_bytes)
            is_new = Log.create(self._folder / name, header)

    def has(self, owner: str, key: str, route: str) -> bool:
        """Whether the key's log is there."""
        if (log := self._at(_name(owner, key))) is None:
            return False
        with contextlib.closing(log):
            return log.first_line().route == route

    def find(self, id: str, owner: str, route: str) -> tuple[Log, LogHeader]:
        """The log of an answer. Raises NotFound, also for another's."""
        digits = id[-NAME_LENGTH - OWN_LENGTH :]
        log = self._at(digits[:NAME_LENGTH]) if digits.isalnum() else None
        if log:
            header = log.first_line()
            if (header.id, header.owner, header.route) == (id, owner, route):
                return log, header
            log.close()
        raise NotFound("There is no such answer. Answers are kept for requests with an Idempotency-Key, for IDEMPOTENCY_SECONDS.")

    def _at(self, name: str) -> Log | None:
        try:
            log = Log(self._folder / name)
        except OSError:
            return None
        if self._age(log.folder) > self._seconds and log.is_orphaned():
            log.remove()
            log.close()
            return None
        return log

    def _tidy(self) -> None:
        now = self._clock()
        if now - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = now
        self._ended.clear()
        forgotten = time.time() - self._seconds
        for log in self._logs():
            if log.at < forgotten and not log.is_needed:
                shutil.rmtree(log.path, ignore_errors=True)

    def _make_room(self, share: str, size: int) -> None:
        """For a request that begins: its log cannot be removed before its answer has ended. Raises TooManyRequests, InvalidValue."""
        allowed = f"IDEMPOTENCY_MAX_BYTES allows {self._size} bytes, half of them for one API key."
        if size > self._size // 2:
            raise InvalidValue(f"The request is too large to be kept for its Idempotency-Key: {allowed}", "Idempotency-Key")
        logs = list(self._logs())
        running = [log for log in logs if log.is_needed]
        own, all = (sum(log.size for log in of) for of in ([log for log in running if log.share == share], running))
        if own + size > self._size // 2 or all + size > self._size:
            told = "Answers with an Idempotency-Key that are still to end take all the room there is"
            raise TooManyRequests(f"{told}: {allowed} Wait for one to end, or leave out the header.", retry_after=1)
        gone = {log.path for log in surplus(logs, self._answers, self._size - size)}
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
        self._ended = {inode: log for inode, log in self._ended.items() if log.path not in gone}

    def _logs(self) -> Iterator[Kept]:
        """All of them; those that somebody writes, or will in a moment, are needed. Who has ended is looked up once a tidying."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as folders:
            for folder in folders:
                inode = folder.inode()
                if inode in self._ended:
                    yield self._ended[inode]
                    continue
                with contextlib.suppress(OSError, ProtocolError):
                    log = self._look_at(Path(folder.path))
                    if not log.is_needed:
                        self._ended[inode] = log
                    yield log

    @staticmethod
    def _look_at(folder: Path) -> Kept:
        """Raises OSError, ProtocolError."""
        with contextlib.closing(Log(folder)) as log:
            stat = os.stat(folder / "log")
            is_new = stat.st_size <= FIRST_LINE_BYTES and time.time() - stat.st_mtime <= YOUNG_SECONDS
            is_running = is_new or not log.is_orphaned()
            size = max(stat.st_size, log.first_line().request_bytes) if is_running else stat.st_size
            return Kept(folder, folder.name[:SHARE_LENGTH], stat.st_mtime, size, is_running)

    @staticmethod
    def _age(folder: Path) -> float:
        try:
            return time.time() - os.stat(folder / "log").st_mtime
        except OSError:
            return 0.0


def _name(owner: str, key: str) -> str:
    share, own = (hashlib.sha256(text.encode()).hexdigest() for text in (owner, f"{owner}\0{key}"))
    return share[:SHARE_LENGTH] + own[: NAME_LENGTH - SHARE_LENGTH]


def store() -> Store:
    """The app's."""
    kept: Store = flask.current_app.extensions["kept_answers"]
    return kept
