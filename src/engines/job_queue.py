"""Jobs that wait for a place in the batch: first come, first served within a fair share per key. Knows no engine."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypedDict

from src.engines.base import Job


class QueueStats(TypedDict):
    """Fields of EngineStats."""

    waiting: int
    longest_wait: float
    admitted: int
    waited_seconds: float


MISSED_SECONDS = 60.0  # since a key's last job came: for so long a place is kept for the next
DIFFERENCE = 2  # jobs: a key that runs so many more than another keeps it waiting
LEAST_PLACES = 4  # with fewer, one that is kept free costs too much


class JobQueue:
    """The turn is the key's that has the fewest jobs running; within it, and between equals, whoever has been set aside or else
    came first has it. Among several keys, the last free place is for one that runs nothing."""

    def __init__(self, places: int = 0) -> None:
        """`places`: jobs that run at the same time."""
        self._places = places
        self._last_came: dict[str, float] = {}  # monotonic seconds, by key, the longest ago first
        self._jobs: dict[int, Job] = {}  # in the order they came
        self._since: dict[int, float] = {}  # monotonic seconds
        self._admitted = 0
        self._waited_seconds = 0.0  # of all jobs admitted

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._since[job.id] = now = time.monotonic()
        self._last_came.pop(job.key, None)
        self._last_came[job.key] = now
        self._forget(now)

    def cancel(self, job_id: int) -> None:
        """Forget a job. Unknown ids are ignored."""
        self._jobs.pop(job_id, None)
        self._since.pop(job_id, None)

    def in_turn(self, running: Iterable[Job]) -> list[Job]:
        """All that wait, in the order in which they are to be admitted beside those that run."""
        share = Counter(job.key for job in running)
        # A stable sort: who came first stays first.
        jobs = sorted(self._jobs.values(), key=lambda job: (share[job.key], not job.set_aside))
        if self._places >= LEAST_PLACES and share.total() >= self._places - 1 and self._misses_one(share):
            return [job for job in jobs if not share[job.key]]
        return jobs

    def was_asked(self) -> bool:
        """Whether a job of any key came a moment ago."""
        self._forget(time.monotonic())
        return any(self._last_came)

    def is_uneven(self, running: Iterable[Job]) -> bool:
        """Whether a key that came a moment ago runs at least DIFFERENCE fewer than another."""
        self._forget(time.monotonic())
        share = Counter(job.key for job in running)
        most = max(share.values(), default=0)
        # "": nobody's, as what tries a new model. Without keys there may be thousands of addresses to look at, in each step.
        return most >= DIFFERENCE and any(key and most - share[key] >= DIFFERENCE for key in self._last_came)

    def _misses_one(self, share: Counter[str]) -> bool:
        """Whether a key that came a moment ago runs nothing."""
        self._forget(time.monotonic())
        return any(key and not share[key] for key in self._last_came)

    def _forget(self, now: float) -> None:
        """Keys that came too long ago: on a server without keys these are addresses, of which there is no end."""
        while self._last_came and now - self._last_came[key := next(iter(self._last_came))] >= MISSED_SECONDS:
            del self._last_came[key]

    def take(self, running: Iterable[Job], may_run: Callable[[Job], bool] = lambda job: True) -> Job | None:
        """Admit the first in turn of those that may run now, None where there is none. `running` are the admitted ones."""
        job = next(filter(may_run, self.in_turn(running)), None)
        if job:
            self.admit(job)
        return job

    def admit(self, job: Job) -> None:
        """A waiting job has got its place."""
        self._admitted += 1
        self._waited_seconds += time.monotonic() - self._since[job.id]
        self.cancel(job.id)

    def stats(self) -> QueueStats:
        longest_wait = time.monotonic() - next(iter(self._since.values())) if self._since else 0.0
        return {
            "waiting": len(self._jobs),
            "longest_wait": longest_wait,
            "admitted": self._admitted,
            "waited_seconds": self._waited_seconds,
        }
