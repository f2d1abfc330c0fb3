"""How much of the models folder one scan looks at. A link in it may lead anywhere: to a whole disk, or to a system's own state."""

import math
import time
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from src.catalog.mounts import state_devices

MAX_DEPTH = 12  # folders below the models folder; in a hub's cache a model lies five deep
MAX_NAMES = 50_000  # below one place of the models folder, what its links lead to included
MAX_ALL_NAMES = 200_000
LINK_SECONDS = 20.0  # for what the links of one place lead to: a disk that sleeps needs ten to wake
RETRY_SECONDS = 60.0  # then what has taken too long is looked at again


class CutOff(NamedTuple):
    """A place that a scan did not look at, or not to its end."""

    path: Path
    what: str
    retry_at: float = math.inf  # in time.monotonic() seconds

    def __str__(self) -> str:
        return self.what

    @property
    def may_change_unseen(self) -> bool:
        """Whether another look might get further although nothing has changed."""
        return time.monotonic() >= self.retry_at

    @property
    def lost(self) -> str | None:
        """What became of a folder that was read before: nothing."""
        return None

    @property
    def remedy(self) -> str:
        return "Link to the folders that hold models, not to one far above them"


class Bounds:
    """One scan's. A place is what lies directly in the models folder; the folder itself is one too."""

    def __init__(self) -> None:
        self._all_names = 0
        self._names: defaultdict[Path, int] = defaultdict(int)
        self._seconds: defaultdict[Path, float] = defaultdict(float)  # in what links lead to

    @cached_property
    def _state_devices(self) -> dict[int, str]:
        return state_devices()

    def refusal(self, path: Path, place: Path, device: int, depth: int) -> CutOff | None:
        """Why a folder is not looked at: where it lies."""
        if kind := self._state_devices.get(device):
            return CutOff(path, f"{path} is skipped: it lies in a file system of the kind {kind}, which holds no models")
        if depth > MAX_DEPTH:
            return CutOff(path, f"what lies more than {MAX_DEPTH} folders deep in {place} is skipped")
        return None

    def names_left(self, place: Path, *, is_root: bool) -> int:
        """How many names may still be read there. `is_root`: it is the models folder itself."""
        everywhere = MAX_ALL_NAMES - self._all_names
        return everywhere if is_root else min(everywhere, MAX_NAMES - self._names[place])

    def seconds_left(self, place: Path) -> float:
        """How long the look at what this place's links lead to may still take."""
        return LINK_SECONDS - self._seconds[place]

    def spend(self, place: Path, names: int = 0, seconds: float = 0.0) -> None:
        self._all_names += names
        self._names[place] += names
        self._seconds[place] += seconds

    def too_many(self, place: Path) -> CutOff:
        where, most = ("it", MAX_NAMES) if self._all_names < MAX_ALL_NAMES else ("the models folder", MAX_ALL_NAMES)
        return CutOff(place, f"the rest of {place} is skipped: {where} has more than {most:,} files and folders")

    def too_slow(self, place: Path) -> CutOff:
        what = f"the rest of {place} is skipped: what its links lead to takes longer than {LINK_SECONDS:g} s to look at"
        return CutOff(place, what, retry_at=time.monotonic() + RETRY_SECONDS)
