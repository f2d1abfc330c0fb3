"""Jobs that wait for a place in the batch: first come, first served within a fair share per key. Knows no engine."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from src.engines.base import Job


class JobQueue:
    """The turn is the key's that has the fewest jobs running; within it, and between equals, whoever came first has it."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}  # in the order they came
        self._since: dict[int, float] = {}  # monotonic seconds
        self.admitted = 0
        self.waited_seconds = 0.0  # of all jobs admitted

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job
        self._since[job.id] = time.monotonic()

    def cancel(self, job_id: int) -> None:
        """Forget a job. Unknown ids are ignored."""
        self._jobs.pop(job_id, None)
        self._since.pop(job_id, None)

    def take(self, running: Iterable[Job], may_run: Callable[[Job], bool] = lambda job: True) -> Job | None:
        """The job whose turn it is among those that may run now, None where there is none. `running` are the admitted ones."""
        share = Counter(job.key for job in running)
        for job in sorted(self._jobs.values(), key=lambda job: share[job.key]):  # a stable sort: who came first stays first
            if may_run(job):
                self.admitted += 1
                self.waited_seconds += time.monotonic() - self._since[job.id]
                self.cancel(job.id)
                return job
        return None

    def longest_wait(self) -> float:
        """Seconds the job that came first has been waiting; 0 where none waits."""
        return time.monotonic() - next(iter(self._since.values())) if self._since else 0.0
