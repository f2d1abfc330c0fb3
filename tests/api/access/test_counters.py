"""What is counted, in memory and in a real Redis alike."""

import time

import pytest

from src.api.access.counters import Counters
from tests.support.redis_server import Redis, redis  # noqa: F401 - a fixture


@pytest.fixture(params=["memory", "redis"])
def counters(request):
    address = "memory" if request.param == "memory" else request.getfixturevalue("redis").url
    return Counters(address, lease=60)


def test_a_limit_lets_so_many_requests_through_and_no_more(counters):
    assert [counters.take_request("a", 3)[0] for _ in range(5)] == [True, True, True, False, False]
    assert counters.take_request("b", 3)[0], "another's are counted apart"


def test_what_is_left_is_told_and_when_there_is_more(counters):
    windows = [counters.take_request("a", 2)[1] for _ in range(3)]
    assert [window.left for window in windows] == [1, 0, 0]
    assert all(window.limit == 2 and 50 < window.reset <= 60 for window in windows)


def test_tokens_are_counted_also_beyond_the_limit(counters):
    assert (counters.tokens("a", 100).left, counters.tokens("a", 100).reset) == (100, 0)
    counters.add_tokens("a", 100, 30)
    assert counters.tokens("a", 100).left == 70
    counters.add_tokens("a", 100, 5000)
    after = counters.tokens("a", 100)
    assert after.left == 0
    assert 50 < after.reset <= 60


def test_so_many_may_run_at_a_time(counters):
    leases = [counters.enter("a", 2) for _ in range(3)]
    assert [bool(lease) for lease in leases] == [True, True, False]
    assert counters.enter("b", 1)
    counters.leave("a", leases[0])
    assert counters.enter("a", 2)
    assert not counters.enter("a", 2)


def test_a_request_runs_with_all_of_its_sequences_or_not_at_all(counters):
    lease = counters.enter("a", 4, 3)
    assert not counters.enter("a", 4, 2)
    assert counters.enter("a", 4, 1)
    counters.leave("a", lease)
    assert counters.enter("a", 4, 3)
    assert not counters.enter("a", 4)


def test_after_a_minute_there_is_room_again_in_memory(monkeypatch):
    counters, now = Counters("memory", lease=60), time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert [counters.take_request("a", 2)[0] for _ in range(3)] == [True, True, False]
    counters.add_tokens("a", 10, 10)
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert not counters.take_request("a", 2)[0]
    assert counters.tokens("a", 10).left == 0
    monkeypatch.setattr(time, "time", lambda: now + 60.1)
    assert counters.take_request("a", 2)[0]
    assert counters.tokens("a", 10).left == 10


def test_a_burst_around_a_minutes_end_gets_no_more_than_the_limit(monkeypatch):
    counters, now = Counters("memory", lease=60), time.time()
    taken = 0
    for second in range(55, 66):
        monkeypatch.setattr(time, "time", lambda second=second: now + second)
        taken += sum(counters.take_request("a", 10)[0] for _ in range(10))
    assert taken == 10


def test_a_place_that_is_not_given_back_ends_by_itself_in_redis(redis: Redis):  # noqa: F811
    counters = Counters(redis.url, lease=1)
    assert counters.enter("a", 2)  # and its worker is killed
    give_up = time.monotonic() + 10
    while True:
        lease = counters.enter("a", 2)
        assert lease, "others come and go all the while"
        other = counters.enter("a", 2)
        counters.leave("a", lease)
        if other:
            break
        assert time.monotonic() < give_up
        time.sleep(0.1)


def test_a_redis_that_is_gone_is_told_by_the_errors_that_are_named(redis: Redis):  # noqa: F811
    counters = Counters(redis.url, lease=60)
    redis.stop()
    for question in (lambda: counters.take_request("a", 1), lambda: counters.tokens("a", 1), lambda: counters.enter("a", 1)):
        with pytest.raises(counters.failures):
            question()
    redis.start()
    assert counters.take_request("a", 1)[0]


def test_so_is_a_value_that_another_program_has_put_there(redis: Redis):  # noqa: F811
    counters = Counters(redis.url, lease=60)
    counters.add_tokens("a", 10, 3)
    [name] = counters._redis.keys("*")
    counters._redis.set(name, "much")
    with pytest.raises(counters.failures):
        counters.tokens("a", 10)
