"""Responses that later ones may go on from: files in the private folder, shared by all workers, as many as the setting allows.

They end with the server. Knows no field of a response but its id.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec

_ID = re.compile(r"resp_[0-9a-f]{32}")


class Stored(msgspec.Struct):
    owner: str  # the name of the API key that it belongs to; "" where there are none
    response: dict[str, Any]
    items: list[dict[str, Any]]  # input and output, of this response and of those before it


class ResponseStore:
    def __init__(self, folder: Path, size: int) -> None:
        """`size`: responses kept; the oldest go first. 0: none, and nothing is written."""
        self._folder = folder
        self._size = size

    @property
    def keeps(self) -> bool:
        return self._size > 0

    def put(self, id: str, stored: Stored) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        path = self._folder / id
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_bytes(msgspec.json.encode(stored))
        beside.replace(path)  # another worker never reads half of it
        self._drop_oldest()

    def get(self, id: str, owner: str) -> Stored | None:
        """None where there is none, or it is somebody else's."""
        if not _ID.fullmatch(id):  # it would be a path
            return None
        try:
            stored = msgspec.json.decode((self._folder / id).read_bytes(), type=Stored)
        except FileNotFoundError:
            return None
        return stored if stored.owner == owner else None

    def remove(self, id: str, owner: str) -> bool:
        """Whether it was there."""
        if self.get(id, owner) is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            (self._folder / id).unlink()
        return True

    def _drop_oldest(self) -> None:
        with os.scandir(self._folder) as entries:
            found = [(entry.stat().st_mtime_ns, entry.path) for entry in entries if _ID.fullmatch(entry.name)]
        for _, path in sorted(found)[: max(0, len(found) - self._size)]:
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                os.unlink(path)
