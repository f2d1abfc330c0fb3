"""One answer's events in a file: appended by one writer, read by many, in any process.

Locks on files, which end with their process, show who is there: the writer's on the log, the readers' beside it.
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

from src.api.render.base import ResponseOptions
from src.protocol import Delta, Ended, Failed, Finished, Generate, Message, Started, decode, encode


class LogHeader(Message, frozen=True, kw_only=True):
    """The first line."""

    id: str  # of the completion
    created: int  # Unix seconds
    owner: str  # the API key's name
    digest: str  # of route and body
    route: str
    stream: bool
    request_bytes: int = 0  # of its request, which the second line will hold


class LogRequest(Message, frozen=True, kw_only=True):
    """The second line: all that another runner or worker needs to continue."""

    model: str
    fingerprint: str
    request: Generate
    wants: ResponseOptions


Line = LogHeader | LogRequest | Started | Delta | Ended | Finished | Failed
FIRST_LINE_BYTES = 2048
LAST_LINE_BYTES = 2048  # of an answer that has ended
PIECE = 256 * 1024  # bytes that are read at once: to decode more would keep other clients waiting


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
    def create(cls, folder: Path, header: LogHeader) -> bool:
        """False where there is one already."""
        new = folder.with_name(f".{header.id}")
        new.mkdir(mode=0o700, parents=True)
        (new / "readers").touch(0o600)
        (new / "log").touch(0o600)
        (new / "log").write_bytes(encode(header))
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

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._file).st_size

    def has_ended(self) -> bool:
        """Whether the answer is whole."""
        size = self.size
        data = os.pread(self._file, LAST_LINE_BYTES, max(0, size - LAST_LINE_BYTES))
        *_, last, rest = [b"", b"", *data.split(b"\n")]
        return not rest and last.startswith(b"{") and isinstance(decode(last + b"\n", Line), Finished)

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

    def first_line(self) -> LogHeader:
        line, newline, _ = os.pread(self._file, FIRST_LINE_BYTES, 0).partition(b"\n")
        header: LogHeader = decode(line + newline, LogHeader)
        return header

    def read(self) -> list[Line]:
        """The lines since the last time, or the first of many."""
        left, piece = self.size - self._read, PIECE
        while True:
            lines, used = _whole(os.pread(self._file, max(0, min(piece, left)), self._read))
            if used or piece >= left:
                self._read += used
                return lines
            piece *= 2  # a line may be longer

    def wait(self, seconds: float) -> None:
        """Until there may be more. Nothing announces the lines of another process: they are looked for."""
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
    """The lines that count, and how many bytes they take. The last Delta of a choice counts together with its end."""
    end = data.rfind(b"\n") + 1
    encoded = [line + b"\n" for line in data[:end].split(b"\n")[:-1]]
    lines: list[Line] = [decode(line, Line) for line in encoded]
    if lines and isinstance(last := lines[-1], Delta) and last.last:
        end -= len(encoded[-1])
        lines.pop()
    return lines, end


def canonical(body: dict[str, object]) -> bytes:
    """A request, the same whatever the order of its fields."""
    return msgspec.json.encode(body, order="sorted")


def digest(route: str, body: bytes) -> str:
    """`body`: canonical."""
    return hashlib.sha256(route.encode() + b"\0" + body).hexdigest()
