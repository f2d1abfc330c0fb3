"""Which running job gives its place up when another key waits for one, or nobody reads what it draws. Knows no engine; for the engine
thread alone.

A job that is set aside is cancelled in the engine and queued again behind the tokens it has drawn, as after a crash: what it
draws next depends on its seed and the position alone.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from src.engines.base import Job, Step
from src.errors import EngineError

PATIENCE = 0.5  # seconds that a job waits before another key's is set aside for it; twice as long before each further one
DIFFERENCE = 2  # jobs that a key runs more than another: with one less it still runs no fewer than the other with one more
LEAST_STEPS = 16  # of a job since it got its place: it is to get on
PAUSE = 0.1  # seconds between two looks


class Exchange(NamedTuple):
    """What to tell the engine."""

    cancelled: int
    added: Job


class _Work:
    """A job in the engine."""

    def __init__(self, id: int, job: Job) -> None:
        self.id = id  # as its mailbox knows it
        self.job = job
        self.drawn: list[int] = []
        self.steps = 0  # 0: it waits
        self.place = 0  # later ones got theirs later
        self.queued_at, self.patience = time.monotonic(), PATIENCE

    def behind_its_tokens(self, id: int) -> Job:
        """Raises EngineError."""
        job, completion = self.job, [*self.job.tokens[self.job.prompt_tokens :], *self.drawn]
        return replace(
            job,
            id=id,
            tokens=[*job.tokens, *self.drawn],
            max_tokens=job.max_tokens - len(self.drawn),
            grammar=job.grammar and job.grammar.behind(completion),
            set_aside=True,
        )


class Preemption:
    def __init__(self) -> None:
        self.count = 0  # jobs set aside
        self._work: dict[int, _Work] = {}  # by the engine's ids
        self._ids: dict[int, int] = {}  # the engine's, by the mailboxes', where they differ
        self._held: dict[int, Job] = {}  # that wait for their readers, as they are to go on, by the mailboxes' ids
        self._new_ids = itertools.count(-1, -1)
        self._places = itertools.count()
        self._next_look = 0.0

    def add(self, job: Job) -> None:
        """The engine has it now."""
        self._work[job.id] = _Work(job.id, job)

    def cancel(self, id: int) -> int:
        """Forget a job. Returns the engine's id of it."""
        self._held.pop(id, None)
        id = self._ids.pop(id, id)
        self._work.pop(id, None)
        return id

    def hold_back(self, id: int) -> int | None:
        """Set a job aside until go_on(). Returns the engine's id of it, which is to be cancelled at once; None where it runs on."""
        work = self._work.get(self._ids.get(id, id))
        if work is None:
            return None
        try:
            self._held[id] = work.behind_its_tokens(next(self._new_ids))
        except EngineError:  # its grammar cannot be followed anew
            return None
        del self._work[work.job.id]
        self._ids.pop(id, None)
        return work.job.id

    def go_on(self, id: int) -> Job | None:
        """A job that was held back, to be added at once; None where there is none."""
        job = self._held.pop(id, None)
        if job is not None:
            self._work[job.id] = _Work(id, job)
            self._ids[id] = job.id
        return job

    def observe(self, steps: Iterable[Step]) -> list[Step]:
        """The steps as the mailboxes know them."""
        return [self._observed(self._work[step.job_id], step) for step in steps if step.job_id in self._work]

    def exchange(self) -> Exchange | None:
        """A job to be set aside now; the engine is to be told at once."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + PAUSE
        running = Counter(work.job.key for work in self._work.values() if work.steps)
        most = max(running, key=running.__getitem__, default="")
        waiting = (
            work
            for work in self._work.values()
            if not work.steps and now - work.queued_at >= work.patience and running[most] - running[work.job.key] >= DIFFERENCE
        )
        waits = next(waiting, None)
        candidates = (work for work in self._work.values() if work.job.key == most and work.steps >= LEAST_STEPS)
        youngest = max(candidates, key=lambda work: work.place, default=None)
        if waits is None or youngest is None:
            return None
        waits.queued_at, waits.patience = now, 2 * waits.patience
        try:
            job = youngest.behind_its_tokens(next(self._new_ids))
        except EngineError:  # its grammar cannot be followed anew: it runs on
            return None
        return self._exchanged(youngest, job)

    def _exchanged(self, work: _Work, job: Job) -> Exchange:
        del self._work[work.job.id]
        self._work[job.id] = _Work(work.id, job)
        self._ids[work.id] = job.id
        self.count += 1
        return Exchange(work.job.id, job)

    def _observed(self, work: _Work, step: Step) -> Step:
        if not work.steps:
            work.place = next(self._places)
        work.steps += 1
        if step.token is not None:
            work.drawn.append(step.token)
        if step.finish or step.error:
            self.cancel(work.id)
        # What was cached of its prompt was told when it first ran.
        return replace(step, job_id=work.id, cached_tokens=None) if work.job.set_aside else step
