"""Responses that later ones may continue: files in the private folder, shared by all workers, as many and as large as the settings allow.

They end with the server. Each owner has a folder of its own.
"""

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import msgspec

from src.api.generation.shares import Kept, surplus

_ID = re.compile(r"resp_[0-9a-f]{32}")
_ITEM_ID = re.compile(r"[a-z]{2,5}_([0-9a-f]{32})([0-9]{1,6})")  # of a response's output: its number there follows the response's own name


class Stored(msgspec.Struct):
    response: dict[str, Any]
    items: list[dict[str, Any]]  # what the model sees of input and output, of this response and of those before it


class ResponseStore:
    def __init__(self, folder: Path, most: int, size: int, seconds: float) -> None:
        """`most`: responses kept, of `size` bytes in all, for `seconds`. 0: none, and nothing is written. For what goes first see
        surplus()."""
        self._folder = folder
        self._most, self._size, self._seconds = most, size, seconds

    @property
    def keeps(self) -> bool:
        return self._most > 0

    def put(self, id: str, owner: str, stored: Stored) -> None:
        """`owner`: of the API key that it belongs to; "" where there are none. One that is larger than all may be is not kept."""
        encoded = msgspec.json.encode(stored)
        if len(encoded) > self._size:
            return
        path = self._path(id, owner)
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_bytes(encoded)
        beside.replace(path)  # another worker never reads half of it
        oldest = self._oldest()
        there = list(self._kept())
        old = [kept for kept in there if kept.at < oldest]
        for kept in [*old, *surplus([kept for kept in there if kept.at >= oldest], self._most, self._size)]:
            kept.path.unlink(missing_ok=True)  # another worker may have been faster

    def get(self, id: str, owner: str) -> Stored | None:
        """None where there is none, it is too old, or somebody else's."""
        if not _ID.fullmatch(id):  # it would be a path
            return None
        try:
            with self._path(id, owner).open("rb") as file:
                if os.fstat(file.fileno()).st_mtime_ns < self._oldest():
                    return None
                return msgspec.json.decode(file.read(), type=Stored)
        except FileNotFoundError:
            return None

    def item(self, id: str, owner: str) -> dict[str, Any] | None:
        """An item of a stored response's output. None where there is none."""
        if (found := _ITEM_ID.fullmatch(id)) is None or (stored := self.get(f"resp_{found[1]}", owner)) is None:
            return None
        output = stored.response["output"]
        number = int(found[2])
        return output[number] if number < len(output) and output[number]["id"] == id else None

    def remove(self, id: str, owner: str) -> bool:
        """Whether it was there."""
        if not _ID.fullmatch(id):
            return False
        try:
            self._path(id, owner).unlink()
        except FileNotFoundError:
            return False
        return True

    def _path(self, id: str, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest() / id

    def _oldest(self) -> int:
        """When what is still stored was written at the earliest, in nanoseconds."""
        return time.time_ns() - int(self._seconds * 1e9)

    def _kept(self) -> Iterator[Kept]:
        for folder in self._folder.iterdir():
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    if _ID.fullmatch(path.name):
                        yield Kept(path, folder.name, stat.st_mtime_ns, stat.st_size)


def response_store() -> ResponseStore:
    """The app's."""
    store: ResponseStore = flask.current_app.extensions["response_store"]
    return store
