"""What a step computes where one key runs much and another little, so that the other does not wait long. Knows no engine."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SHORT, NEWCOMERS = 0.04, 0.12  # seconds that a step is to take then, and one for those who run little
LEAST_JOBS = 2  # in each part of a step
WORTH = 1.5  # of a whole step: where all parts together take longer, they are too much for a shorter wait
TRIES = 3  # steps of a size, before they are judged: one alone may have been slow for another reason
NEAR = 0.75  # sizes whose ratio is between this and 1 take as long for each job
MEASURED_AGAIN = 512  # steps, until each size is tried once more
WEIGHT = 0.2  # of the newest step in the running averages


class Running(NamedTuple):
    key: str
    draws: bool  # its prompt is through


class Share(NamedTuple):
    jobs: Sequence[int]  # indices of those to compute
    seconds: float  # that their prompts may take


class StepShare:
    """A step is of one kind: prompts of keys that run less than another, other prompts, or a part of the jobs that draw. Those of the
    first kind have every second step."""

    def __init__(self) -> None:
        self._newcomers = self._prompts = False  # whether the last step was for them; the last that was not for newcomers
        self._parts = _Parts()

    def choose(self, running: Sequence[Running]) -> Share:
        newcomers = _newcomers(running)
        others = [index for index in range(len(running)) if index not in newcomers]
        self._newcomers = bool(newcomers) and not (others and self._newcomers)
        if self._newcomers:
            return Share(newcomers, NEWCOMERS)
        prompts, drawing = ([index for index in others if running[index].draws is draws] for draws in (False, True))
        self._prompts = bool(prompts) and not (drawing and self._prompts)
        return Share(prompts if self._prompts else self._parts.next(drawing), SHORT)

    def observe(self, drawing: int, seconds: float) -> None:
        """What a step took in which so many jobs drew a token each, and no prompt was computed."""
        self._parts.observe(drawing, seconds)


def _newcomers(running: Sequence[Running]) -> list[int]:
    count = Counter(job.key for job in running)
    most = max(count.values(), default=0)
    return [index for index, job in enumerate(running) if not job.draws and count[job.key] < most]


class _Parts:
    """A long step's jobs in several steps, where these together take about as long on this machine with this model."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # of a step, by its jobs
        self._seen: Counter[int] = Counter()
        self._end = 0  # of the last part, which the next one follows

    def next(self, jobs: Sequence[int]) -> Sequence[int]:
        size = self._size(len(jobs))
        if size == len(jobs):
            return jobs
        begin = self._end if self._end < len(jobs) else 0
        self._end = begin + size
        return jobs[begin : self._end]

    def observe(self, jobs: int, seconds: float) -> None:
        if self._seen.total() >= MEASURED_AGAIN:
            self._seen.clear()
        known = self._seconds.get(jobs, seconds) if self._seen[jobs] else seconds
        self._seconds[jobs] = known + WEIGHT * (seconds - known)
        self._seen[jobs] += 1

    def _size(self, jobs: int) -> int:
        """The largest part that makes a step short. Sizes that are not known yet are tried, the larger first."""
        size, whole = jobs, self._expected(jobs)
        for parts in range(2, jobs // LEAST_JOBS + 1):
            seconds, smaller = self._expected(size), math.ceil(jobs / parts)
            if whole is None or seconds is None or seconds <= SHORT:
                break
            if (self._expected(smaller) or 0.0) * jobs / smaller > WORTH * whole:
                break
            size = smaller
        return size

    def _expected(self, size: int) -> float | None:
        """Seconds of a step with so many jobs, by the steps of that size or of the nearest that is known. None: of none."""
        near = [known for known, seen in self._seen.items() if seen >= TRIES and min(size, known) / max(size, known) >= NEAR]
        known = min(near, key=lambda known: abs(known - size), default=None)
        return None if known is None else self._seconds[known] * size / known
