"""Jobs that wait: first come, first served within a fair share per key."""

import pytest

from src.engines.base import Job
from src.engines.job_queue import JobQueue
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


def test_whoever_is_to_be_admitted_next_can_be_looked_at_first():
    queue = filled(job(1, "a"), job(2, "b"), job(3, "a"))
    assert [waiting.id for waiting in queue.in_turn([job(9, "a")])] == [2, 1, 3]
    assert len(queue) == 3


def test_none_is_taken_where_none_may_run():
    queue = filled(job(1))
    assert queue.take([], lambda job: False) is None
    assert (len(queue), queue.stats()["admitted"]) == (1, 0)


def test_a_cancelled_job_is_gone_and_counts_as_never_admitted():
    queue = filled(job(1), job(2))
    queue.cancel(1)
    queue.cancel(77)
    assert take_all(queue, []) == [2]
    assert queue.stats()["admitted"] == 1


def test_waits_are_measured_from_the_add(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    queue = filled(job(1))
    now = 103.0
    queue.add(job(2))
    now = 104.0
    assert queue.stats() == {"waiting": 2, "longest_wait": 4.0, "admitted": 0, "waited_seconds": 0.0}
    queue.take([])
    queue.take([])
    assert queue.stats() == {"waiting": 0, "longest_wait": 0.0, "admitted": 2, "waited_seconds": 5.0}


def test_one_that_was_set_aside_comes_first_of_its_key_and_not_before_another_with_less():
    again = Job(id=5, tokens=[1], prompt_tokens=1, max_tokens=1, sampling=SamplingParams(seed=1), key="a", set_aside=True)
    assert take_all(filled(job(1, "a"), job(2, "b"), again), [job(9, "a")]) == [2, 5, 1]


def test_the_last_place_stays_free_for_a_key_that_came_a_moment_ago(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    queue = JobQueue(places=4)
    queue.add(job(1, "guest"))
    assert queue.take([]).id == 1
    for id in range(2, 8):
        queue.add(job(id, "crowd"))
    running = [job(90, "crowd"), job(91, "crowd")]
    assert take_all(queue, running) == [2], "the guest may come again"
    running.append(job(2, "crowd"))
    queue.add(job(8, "guest"))
    assert queue.take(running).id == 8
    assert queue.take(running) is None
    now[0] += 61
    assert queue.take(running).id == 3, "it has not come for a minute"


def test_one_key_alone_and_a_batch_of_few_places_keep_nothing_free():
    crowd = [job(id, "crowd") for id in range(6)]
    queue = JobQueue(places=4)
    for one in crowd:
        queue.add(one)
    assert take_all(queue, []) == [0, 1, 2, 3, 4, 5]
    small = JobQueue(places=3)
    for one in (job(10, "guest"), *crowd):
        small.add(one)
    assert take_all(small, [job(90, "crowd"), job(91, "crowd")])[:2] == [10, 0]


def test_who_has_not_come_for_long_is_forgotten(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    queue = JobQueue(places=4)
    for id in range(500):
        queue.add(job(id, f"address {id}"))
        now[0] += 1
    assert len(queue._last_came) <= 60


@pytest.mark.parametrize(
    ("running", "uneven"),
    [
        ([], False),
        (["crowd"], False),
        (["crowd", "crowd"], True),
        (["crowd", "crowd", "late"], False),
        (["crowd", "crowd", "crowd", "late"], True),
        (["", "", ""], True),
    ],
)
def test_it_is_uneven_where_a_key_that_came_a_moment_ago_runs_much_less(running, uneven):
    queue = filled(job(1, "late"))
    queue.cancel(1)
    assert queue.is_uneven([job(id, key) for id, key in enumerate(running, 10)]) is uneven


def test_one_key_alone_is_never_uneven():
    queue = filled(job(1, "crowd"))
    assert not queue.is_uneven([job(id, "crowd") for id in range(20)])
