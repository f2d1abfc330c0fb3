"""Which files and folders a scan looked at, and whether they are still the same. Opens none of them."""

import os
import time
from pathlib import Path

# A file system's clock has steps, and two changes within one step look like one. So what changed this recently may have changed
# again unseen (git calls such entries racy: https://git-scm.com/docs/racy-git). FAT has the longest steps.
SETTLE_SECONDS = 2.0

Stamp = tuple[int, int, int, int, int]


class Stamps:
    """One scan's. To be made before its first look; each path has to be looked at before it is listed or read."""

    def __init__(self) -> None:
        self._began = time.time_ns()
        self._stamps: dict[str, Stamp | None] = {}  # None: there was nothing

    def look(self, path: Path) -> os.stat_result:
        """Raises OSError; remembers that too."""
        self._stamps[str(path)] = None
        info = path.stat()
        self._stamps[str(path)] = _stamp(info)
        return info

    @property
    def current(self) -> bool:
        """Whether another scan would find nothing new. False before the first look."""
        return bool(self._stamps) and self._settled and all(_stamp_of(path) == stamp for path, stamp in self._stamps.items())

    @property
    def _settled(self) -> bool:
        newest = max((stamp[-1] for stamp in self._stamps.values() if stamp), default=0)
        return newest < self._began - SETTLE_SECONDS * 1e9


def _stamp(info: os.stat_result) -> Stamp:
    """The time of the last change of a file's metadata comes last: no program can set it back."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _stamp_of(path: str) -> Stamp | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None
