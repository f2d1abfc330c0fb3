"""One answer's events in a file: appended by one writer, read by many, in any process. Knows no request and no runner.

Who is there is told by locks on files, which end with their process: the writer's on the log, the readers' beside it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
from gevent.event import Event

from src.api.render import Wants
from src.protocol import Delta, Ended, Failed, Finished, Generate, Message, Started, decode, encode


class Opened(Message, frozen=True, kw_only=True):
    """The first line."""

    id: str  # of the completion
    created: int  # Unix seconds
    owner: str  # the API key's name
    digest: str  # of route and body
    route: str
    stream: bool


class Asked(Message, frozen=True, kw_only=True):
    """The second: all that another runner or worker needs to go on."""

    model: str
    fingerprint: str
    request: Generate
    wants: Wants


Line = Opened | Asked | Started | Delta | Ended | Finished | Failed
FIRST_LINE_BYTES = 2048


class Log:
    """Append and read from one greenlet each; every reader has a Log of its own."""

    _news: ClassVar[dict[Path, Event]] = {}  # of the logs this process writes

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError."""
        self.folder = folder
        self._file = os.open(folder / "log", os.O_RDWR | os.O_APPEND)
        self._readers = os.open(folder / "readers", os.O_RDWR)
        self._read = 0  # bytes

    @classmethod
    def create(cls, folder: Path, opened: Opened) -> bool:
        """False where there is one already."""
        new = folder.with_name(f".{opened.id}")
        new.mkdir(mode=0o700, parents=True)
        (new / "readers").touch(0o600)
        (new / "log").touch(0o600)
        (new / "log").write_bytes(encode(opened))
        try:
            new.rename(folder)
        except OSError:  # a folder that is not empty is never replaced
            shutil.rmtree(new, ignore_errors=True)
            return False
        return True

    def close(self) -> None:
        for descriptor in (self._file, self._readers):
            os.close(descriptor)

    def remove(self) -> None:
        """Whoever reads it reads on; nobody finds it any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # The writer's

    def take_over(self) -> bool:
        """Become the writer, where there is none."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._news.setdefault(self.folder, Event())
        return True

    def cut_to_whole(self) -> list[Line]:
        """All lines; a writer that died in the middle of one is forgotten from there on."""
        lines, size = _whole(os.pread(self._file, os.fstat(self._file).st_size, 0))
        os.ftruncate(self._file, size)
        return lines

    def append(self, *lines: Line) -> None:
        os.write(self._file, b"".join(map(encode, lines)))
        news = self._news[self.folder]
        news.set()
        news.clear()

    def has_readers(self) -> bool:
        try:
            fcntl.flock(self._readers, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._readers, fcntl.LOCK_UN)
        return False

    def release(self) -> None:
        """The writer is done."""
        self._news.pop(self.folder, None)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    # A reader's

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        fcntl.flock(self._readers, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._readers, fcntl.LOCK_UN)

    def first_line(self) -> Opened:
        line, newline, _ = os.pread(self._file, FIRST_LINE_BYTES, 0).partition(b"\n")
        opened: Opened = decode(line + newline, Opened)
        return opened

    def read(self) -> list[Line]:
        """The lines since the last time."""
        size = os.fstat(self._file).st_size
        lines, used = _whole(os.pread(self._file, max(0, size - self._read), self._read))
        self._read += used
        return lines

    def wait(self, seconds: float) -> None:
        """Till there may be more. The lines of another process are looked for, not told."""
        self._news.get(self.folder, Event()).wait(seconds)

    def is_orphaned(self) -> bool:
        """No writer is there. Raises FileNotFoundError where the log was removed."""
        other = os.open(self.folder / "log", os.O_RDWR)
        try:
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(other)
        return True


def _whole(data: bytes) -> tuple[list[Line], int]:
    """The lines that count, and how many bytes they take. The last words of a choice count together with its end."""
    end = data.rfind(b"\n") + 1
    found = [line + b"\n" for line in data[:end].split(b"\n")[:-1]]
    lines: list[Line] = [decode(line, Line) for line in found]
    if lines and isinstance(last := lines[-1], Delta) and last.last:
        end -= len(found[-1])
        lines.pop()
    return lines, end


def digest(route: str, body: dict[str, object]) -> str:
    """Of what is asked, whatever the order of its fields."""
    return hashlib.sha256(route.encode() + b"\0" + msgspec.json.encode(body, order="sorted")).hexdigest()
