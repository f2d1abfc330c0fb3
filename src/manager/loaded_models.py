"""Which models are loaded, in a file: a manager that takes the place of one that died loads them again. Knows only their names."""

import contextlib
import os
from pathlib import Path

import msgspec


class Loaded(msgspec.Struct, frozen=True):
    default: str | None = None  # what was switched to
    models: tuple[str, ...] = ()


class LoadedModels:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = Loaded()

    def write(self, loaded: Loaded) -> None:
        if loaded == self._written and self._path.exists():  # a system that cleans old files may have taken it
            return
        new = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the one before counts
            new.write_bytes(msgspec.json.encode(loaded))
            os.replace(new, self._path)
            self._written = loaded

    def read(self) -> Loaded:
        """What the manager before wrote; nothing where there was none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Loaded)
        except (OSError, msgspec.MsgspecError):
            return Loaded()
