"""Jobs that wait: first come, first served within a fair share per key."""

from src.engines.base import Job
from src.engines.queue import JobQueue
from src.sampling import SamplingParams


def job(id: int, key: str = "") -> Job:
    return Job(id=id, tokens=[1], prompt_tokens=1, max_tokens=1, sampling=SamplingParams(seed=id), key=key)


def filled(*jobs: Job) -> JobQueue:
    queue = JobQueue()
    for one in jobs:
        queue.add(one)
    return queue


def take_all(queue: JobQueue, running: list[Job]) -> list[int]:
    """The order in which all are admitted when nothing ends meanwhile."""
    ids = []
    while taken := queue.take(running):
        ids.append(taken.id)
        running = [*running, taken]
    return ids


def test_of_one_key_who_came_first_is_served_first():
    assert take_all(filled(job(3), job(1), job(2)), []) == [3, 1, 2]


def test_a_key_with_fewer_jobs_running_has_the_turn():
    crowd = [job(id, "crowd") for id in range(6)]
    assert take_all(filled(*crowd, job(10, "late"), job(11, "late")), [job(90, "crowd"), job(91, "crowd")]) == [10, 11, 0, 1, 2, 3, 4, 5]


def test_keys_with_equal_shares_take_turns():
    assert take_all(filled(*(job(id, "a") for id in range(3)), *(job(id, "b") for id in range(10, 13))), []) == [0, 10, 1, 11, 2, 12]


def test_one_that_may_not_run_yet_keeps_its_place():
    queue = filled(job(1), job(2))
    assert queue.take([], lambda job: job.id != 1).id == 2
    assert len(queue) == 1
    assert queue.take([]).id == 1


def test_none_is_taken_where_none_may_run():
    queue = filled(job(1))
    assert queue.take([], lambda job: False) is None
    assert (len(queue), queue.admitted) == (1, 0)


def test_a_cancelled_job_is_gone_and_counts_as_never_admitted():
    queue = filled(job(1), job(2))
    queue.cancel(1)
    queue.cancel(77)
    assert take_all(queue, []) == [2]
    assert queue.admitted == 1


def test_waits_are_measured_from_the_add(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    queue = filled(job(1))
    now = 103.0
    queue.add(job(2))
    now = 104.0
    assert queue.longest_wait() == 4.0
    queue.take([])
    queue.take([])
    assert (queue.waited_seconds, queue.admitted, queue.longest_wait()) == (5.0, 2, 0.0)
