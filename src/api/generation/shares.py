"""Whose things go when a folder of kept things is full: those of whoever has most in it, so that nobody pushes out what others have."""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Kept(NamedTuple):
    path: Path
    share: str  # whose it is
    at: float  # when it was last written
    size: int  # bytes
    is_needed: bool = False  # it counts, but does not go


def surplus(things: Iterable[Kept], most: int, size: int) -> Iterator[Kept]:
    """What has to go, so that no more than `most` things of `size` bytes are left: the oldest of whoever has most of what is too much."""
    things = list(things)
    if len(things) <= most and sum(thing.size for thing in things) <= size:
        return
    numbers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    removable: defaultdict[str, deque[Kept]] = defaultdict(deque)
    for thing in sorted(things, key=lambda thing: thing.at):
        numbers[thing.share] += not thing.is_needed
        sizes[thing.share] += thing.size
        if not thing.is_needed:
            removable[thing.share].append(thing)
    while removable and ((too_large := sizes.total() > size) or numbers.total() > most):
        share = max(removable, key=(sizes if too_large else numbers).__getitem__)
        thing = removable[share].popleft()
        numbers[share] -= 1
        sizes[share] -= thing.size
        if not removable[share]:
            del removable[share]
        yield thing
