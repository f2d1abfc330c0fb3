"""The folder of logs: found by key or by a completion's id, bounded by age, number and bytes. Knows no line but the first."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from uuid import uuid4

from src.api.replay.log import Log, Opened
from src.errors import IdempotencyKeyReused, NotFound

NAME_LENGTH = 24  # hexadecimal digits of an id that are its log's name
TIDY_SECONDS = 1.0
YOUNG_SECONDS = 1.0  # a log that was just made has no writer yet


class Store:
    def __init__(self, folder: Path, seconds: float, answers: int, size: int) -> None:
        """At most so many ended answers, of so many bytes in all, none older than `seconds`."""
        self._folder, self._answers, self._size = folder, answers, size
        self._seconds = max(seconds, YOUNG_SECONDS)
        self._tidied_at = -TIDY_SECONDS

    def open(self, owner: str, key: str, route: str, asked: str, prefix: str, stream: bool) -> tuple[Log, Opened, bool]:
        """The log of a key, and whether it is a new one. Raises IdempotencyKeyReused where the key stands for another request."""
        self._tidy()
        name = hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()[:NAME_LENGTH]
        is_new = False
        while True:
            if log := self._at(name):
                opened = log.first_line()
                if opened.digest != asked:
                    log.close()
                    raise IdempotencyKeyReused("This Idempotency-Key was used for another request. Take a new key for each.")
                return log, opened, is_new
            opened = Opened(
                id=f"{prefix}{name}{uuid4().hex[:8]}", created=int(time.time()), owner=owner, digest=asked, route=route, stream=stream
            )
            is_new = Log.create(self._folder / name, opened)

    def find(self, id: str, owner: str, route: str) -> tuple[Log, Opened]:
        """The log of an answer. Raises NotFound, also for another's."""
        _, _, digits = id.partition("-")
        log = self._at(digits[:NAME_LENGTH]) if digits.isalnum() else None
        if log:
            opened = log.first_line()
            if (opened.id, opened.owner, opened.route) == (id, owner, route):
                return log, opened
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
        now = time.monotonic()
        if now - self._tidied_at < TIDY_SECONDS:
            return
        self._tidied_at = now
        ended = sorted(self._ended(), key=lambda found: found[1])
        count, size = len(ended), sum(size for _, _, size in ended)
        for folder, at, length in ended:
            if count <= self._answers and size <= self._size and time.time() - at <= self._seconds:
                break
            shutil.rmtree(folder, ignore_errors=True)
            count, size = count - 1, size - length

    def _ended(self) -> list[tuple[Path, float, int]]:
        """Logs that nobody writes: folder, Unix seconds of their last line, bytes."""
        found = []
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            try:
                log = Log(folder)
            except OSError:
                continue
            try:
                stat = os.stat(folder / "log")
                if log.is_orphaned() and time.time() - stat.st_mtime > YOUNG_SECONDS:
                    found.append((folder, stat.st_mtime, stat.st_size))
            except OSError:
                continue
            finally:
                log.close()
        return found

    @staticmethod
    def _age(folder: Path) -> float:
        try:
            return time.time() - os.stat(folder / "log").st_mtime
        except OSError:
            return 0.0
