"""What a step computes where one key runs much and another little, so that the other does not wait long. Knows no engine."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SHORT, NEWCOMERS = 0.06, 0.12  # seconds that a step is to take then, and one for those who run little
LEAST_JOBS = 8  # of which half are left for another step
WORTH = 0.6  # of a whole step: where half of its jobs take longer, two of such steps are too much for a shorter wait
WEIGHT = 0.2  # of the newest step in the running averages
MEASURED_AGAIN = 64  # steps of one kind, until the other is tried once


class Running(NamedTuple):
    key: str
    draws: bool  # its prompt is through


class Share(NamedTuple):
    jobs: Sequence[int]  # indices of those to compute
    seconds: float  # that their prompts may take


class StepShare:
    """A step is of one kind: prompts of keys that run less than another, other prompts, or half of the jobs that draw. Those of the
    first kind have every second step."""

    def __init__(self) -> None:
        self._newcomers = self._prompts = False  # whether the last step was for them; the last that was not for newcomers
        self._halves = _Halves()

    def choose(self, running: Sequence[Running]) -> Share:
        newcomers = _newcomers(running)
        others = [index for index in range(len(running)) if index not in newcomers]
        self._newcomers = bool(newcomers) and not (others and self._newcomers)
        if self._newcomers:
            return Share(newcomers, NEWCOMERS)
        prompts, drawing = ([index for index in others if running[index].draws is draws] for draws in (False, True))
        self._prompts = bool(prompts) and not (drawing and self._prompts)
        return Share(prompts if self._prompts else self._halves.next(drawing), SHORT)

    def observe(self, jobs: int, drawing: int, seconds: float) -> None:
        """What a step took in which `jobs` of those that draw drew a token each, and no prompt was computed."""
        self._halves.observe(jobs == drawing, seconds)


def _newcomers(running: Sequence[Running]) -> list[int]:
    count = Counter(job.key for job in running)
    most = max(count.values(), default=0)
    return [index for index, job in enumerate(running) if not job.draws and count[job.key] < most]


class _Halves:
    """A long step's jobs in two steps, where half of them take about half as long on this machine with this model."""

    def __init__(self) -> None:
        self._seconds: dict[bool, float] = {}  # of a step, by whether it is a whole one
        self._steps = 0  # since one of the two was forgotten
        self._second = False

    def next(self, jobs: Sequence[int]) -> Sequence[int]:
        if len(jobs) < LEAST_JOBS or not self._is_worth_it():
            return jobs
        self._second = not self._second
        middle = (len(jobs) + 1) // 2
        return jobs[:middle] if self._second else jobs[middle:]

    def observe(self, whole: bool, seconds: float) -> None:
        known = self._seconds.get(whole, seconds)
        self._seconds[whole] = known + WEIGHT * (seconds - known)
        self._steps += 1
        if self._steps >= MEASURED_AGAIN:
            self._seconds.pop(not whole, None)
            self._steps = 0

    def _is_worth_it(self) -> bool:
        whole, half = (self._seconds.get(whole) for whole in (True, False))
        return whole is not None and whole >= SHORT and (half is None or half < WORTH * whole)
